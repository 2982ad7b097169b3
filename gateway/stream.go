package gateway

import (
	"container/list"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// recentEvents is how many of a conversation's newest events a stream keeps. A session that is further behind reads
// the store.
const recentEvents = 128

// stream is a conversation in which something happened lately: its head, its newest events, and the sessions here
// whose users take part.
type stream struct {
	id domain.ConversationID

	// Guarded by hub.mu.
	users  int
	place  *list.Element
	weight int
	came   uint64 // which users who came since are not known here yet: those after this count of the hub's

	// announcing is held while sessions are told of events, so that they hear of them in order. It comes before
	// hub.mu in the lock order.
	announcing sync.Mutex

	mu sync.Mutex
	// head is the newest committed state: commands are decided on it. nil: not loaded. It is replaced, never changed.
	head *domain.Conversation
	// settled is the state up to which events were announced: it follows head, and says who is told.
	settled *domain.Conversation
	// last is the number of the newest event that was announced to the sessions.
	last domain.Seq
	// recent holds the newest events up to last, in order and without a gap.
	recent []*entry
	// online is replaced, never changed.
	online []*Session
	// delivered is up to where participants were last told of deliveries to a user, at most [Options.MaxMarked] of them.
	delivered map[domain.UserID]domain.Seq
	// born is set when a command here creates the conversation: its log is announced from the first event on.
	born bool
	// waiting holds commands that wait for the head; loading is set while somebody reads it.
	waiting []*item
	loading bool
}

// entry is a committed event with its encodings.
type entry struct {
	event    *domain.Event
	accepted time.Time
	// size approximates the memory that the entry takes.
	size int

	once  sync.Once
	plain *domain.Publication
	own   *domain.Publication
	// linked is the entry with URLs for its external content, which are to be made anew from renew on.
	mu     sync.Mutex
	linked *entry
	renew  time.Time
}

// publication gives the event as p is to see it: its request id is for the initiator's devices.
func (e *entry) publication(p domain.Principal) *domain.Publication {
	e.once.Do(e.encode)
	if by := &e.event.Initiator; e.own != nil && p.User == by.UserID && p.ServiceName == by.Service {
		return e.own
	}
	return e.plain
}

func (e *entry) encode() {
	topic := domain.Topic{Kind: domain.EventsTopic, Conversation: e.event.Conversation}.String()
	ev := *e.event
	if ev.RequestID != "" {
		e.own = &domain.Publication{Topic: topic, Payload: encode(&ev), Accepted: e.accepted}
	}
	ev.RequestID = ""
	e.plain = &domain.Publication{Topic: topic, Payload: encode(&ev), Accepted: e.accepted}
}

// encode gives v as JSON. What the gateway encodes is made of its own types and of JSON that was checked when it
// came in, so an error is a defect.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("gateway: cannot encode what it made: " + err.Error())
	}
	return b
}

// Head gives the newest state known here, nil if none is. It must not be changed.
func (st *stream) Head() *domain.Conversation {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.head
}

// advance makes head the state that commands are decided on, unless a newer one is known.
func (st *stream) advance(head *domain.Conversation) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.head == nil || st.head.Version < head.Version {
		st.head = head
	}
}

// announced gives the state up to which events were announced, and the number of the newest of them.
func (st *stream) announced() (settled *domain.Conversation, last domain.Seq) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.settled, st.last
}

// reached gives the number of the newest event that was announced; false while nothing is announced yet, because it is
// not known where that begins.
func (st *stream) reached() (last domain.Seq, announces bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.last, st.settled != nil || st.born
}

// settledHead gives the state up to which events were announced.
func (st *stream) settledHead() *domain.Conversation {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.settled
}

// add lets a session of a participant take part.
func (st *stream) add(s *Session) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.settled == nil || st.settled.Removed {
		return
	}
	p, ok := st.settled.Participant(s.principal.User)
	if ok && p.Permissions.Reads() && !slices.Contains(st.online, s) {
		st.online = append(slices.Clone(st.online), s)
	}
}

// drop is the opposite of add.
func (st *stream) drop(s *Session) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if i := slices.Index(st.online, s); i >= 0 {
		st.online = slices.Delete(slices.Clone(st.online), i, i+1)
	}
}

// clear drops what the stream holds. Nobody uses it any more, but sessions that are behind may still refer to it.
func (st *stream) clear() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.head, st.settled, st.recent, st.online, st.delivered = nil, nil, nil, nil, nil
}

// take notes that events are committed: those up to known, which are not at hand, and entries, in ascending
// order. It gives what the sessions have to be told: the events from..last. More than the entries are due where others
// were committed elsewhere, or given up and committed all the same. from is 0 when all was told before.
func (st *stream) take(known domain.Seq, entries []*entry) (from, last domain.Seq, online []*Session) {
	st.mu.Lock()
	defer st.mu.Unlock()
	from = st.last + 1
	if known > st.last {
		st.last, st.recent = known, nil
	}
	for _, e := range entries {
		if e.event.Seq <= st.last {
			continue
		}
		if e.event.Seq > st.last+1 {
			st.recent = nil // there is a gap before the entry, and recent has none
		}
		if e.rewrites() {
			st.amend(e.event)
		}
		st.recent = append(st.recent, e)
		st.last = e.event.Seq
	}
	if over := len(st.recent) - recentEvents; over > 0 {
		st.recent = slices.Delete(st.recent, 0, over)
	}
	if st.last < from {
		return 0, 0, nil
	}
	return from, st.last, st.online
}

// rewrites reports whether the entry changes what an earlier event shows.
func (e *entry) rewrites() bool {
	return e.event.Type == domain.EventEditMessage || e.event.Type == domain.EventRemoveMessage
}

// amend has the recent events show what became of their messages. The caller holds mu.
func (st *stream) amend(by *domain.Event) {
	for i, e := range st.recent {
		if now, ok := e.event.Amended(by); ok {
			st.recent[i] = newEntry(now, e.accepted)
		}
	}
}

// open makes head the state that was read when the conversation became active here; events up to it need no
// announcement. It reports false for a conversation that is being created here: there they do.
func (st *stream) open(head *domain.Conversation) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.head == nil {
		st.head = head
	}
	if st.born {
		return false
	}
	st.last = max(st.last, head.LastSeq)
	return true
}

// since gives up to limit of the recent events from number next on; none if they are not among the recent.
func (st *stream) since(next, upto domain.Seq, limit int) []*entry {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.recent) == 0 {
		return nil
	}
	i := int(next - st.recent[0].event.Seq)
	if i < 0 || i >= len(st.recent) {
		return nil
	}
	n := min(len(st.recent)-i, limit, int(upto-next)+1)
	return slices.Clone(st.recent[i : i+n])
}

// holds gives the memory that the stream takes, roughly, in bytes.
func (st *stream) holds() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := 512
	if st.head != nil {
		n += 160*len(st.head.Participants) + len(st.head.CustomData)
	}
	for _, e := range st.recent {
		n += e.size
	}
	return n
}
