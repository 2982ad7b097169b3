package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

// model is what a store should hold, kept in the simplest way.
type model struct {
	conversations map[domain.ConversationID]*modelConversation
	unique        map[string]domain.ConversationID
	order         []domain.ConversationID
}

type modelConversation struct {
	head   *domain.Conversation
	events []*domain.Event
	past   map[domain.UserID][]domain.Interval
}

func (m *model) heads(w *World, p domain.Principal, needs domain.Needs) *domain.Heads {
	h := &domain.Heads{}
	if c := m.conversations[needs.Conversation]; c != nil {
		h.Conversation = c.head
		if n := needs.Message; n > 0 && int(n) <= len(c.events) && c.events[n-1].Type == domain.EventSendMessage {
			h.Message = c.events[n-1]
		}
	}
	for _, u := range w.Users {
		if slices.ContainsFunc(needs.Users, func(r domain.UserRef) bool { return r.Is(u) }) {
			h.Users = append(h.Users, u)
		}
	}
	return h
}

// change decides a request on the model and puts the decision into effect.
func (m *model) change(w *World, r *domain.ChangeRequest) (domain.Decision, error) {
	h := m.heads(w, r.Principal, r.Needs)
	d, err := r.Decide(h)
	if err != nil {
		return d, err
	}
	if c := d.Conversation; c != nil && c.UniqueKey != "" && h.Conversation == nil {
		if holder, taken := m.unique[c.UniqueKey]; taken {
			h.Existing = m.conversations[holder].head
			return r.Decide(h)
		}
	}
	m.apply(h.Conversation, &d)
	return d, nil
}

func (m *model) apply(before *domain.Conversation, d *domain.Decision) {
	if len(d.Events) == 0 {
		return
	}
	c := m.conversations[d.Events[0].Conversation]
	if c == nil {
		c = &modelConversation{past: make(map[domain.UserID][]domain.Interval)}
		m.conversations[d.Events[0].Conversation] = c
		m.order = append(m.order, d.Events[0].Conversation)
	}
	if d.Message != nil {
		for i, e := range c.events {
			if e.Message == nil || e.Message.Seq != d.Message.Seq || e.Type == domain.EventRemoveMessage {
				continue
			}
			now := *e
			msg := *d.Message.Message
			now.Message = &msg
			c.events[i] = &now
		}
	}
	c.events = append(c.events, d.Events...)
	if d.Conversation == nil {
		head := *c.head
		head.LastSeq += domain.Seq(len(d.Events))
		c.head = &head
		return
	}
	seq := d.Events[0].Seq
	if before != nil {
		delete(m.unique, before.UniqueKey)
		for _, p := range before.Participants {
			if _, still := d.Conversation.Participant(p.UserID); !still {
				c.ends(p.UserID, seq)
			}
		}
	}
	for _, p := range d.Conversation.Participants {
		var old domain.Participant
		was := false
		if before != nil {
			old, was = before.Participant(p.UserID)
		}
		switch reads := p.Permissions.Reads(); {
		case !was && !reads:
			c.past[p.UserID] = append(c.past[p.UserID], domain.Interval{From: seq, To: -1})
		case reads && !(was && old.Permissions.Reads()):
			c.past[p.UserID] = append(c.past[p.UserID], domain.Interval{From: seq})
		case was && !reads:
			c.ends(p.UserID, seq)
		}
	}
	if k := d.Conversation.UniqueKey; k != "" {
		m.unique[k] = d.Conversation.ID
	}
	c.head = d.Conversation
}

// ends notes that a user's reading ended, if it had not before.
func (c *modelConversation) ends(user domain.UserID, seq domain.Seq) {
	if list := c.past[user]; list[len(list)-1].To == 0 {
		list[len(list)-1].To = seq
	}
}

// append puts drafts into effect and gives what should become of them.
func (m *model) append(batch []domain.Draft) []domain.Placement {
	placements := make([]domain.Placement, len(batch))
	for i, d := range batch {
		c := m.conversations[d.Event.Conversation]
		if c == nil {
			placements[i].Status = domain.Missing
			continue
		}
		known := slices.IndexFunc(c.events, func(e *domain.Event) bool {
			return e.Sender == d.Event.Sender && e.ClientID == d.Event.ClientID
		})
		switch {
		case known >= 0:
			placements[i] = domain.Placement{Status: domain.Known, Seq: domain.Seq(known + 1)}
		case d.Version != c.head.Version:
			placements[i].Status = domain.Stale
		default:
			head := *c.head
			head.LastSeq++
			c.head = &head
			e := *d.Event
			msg := *e.Message
			e.Message = &msg
			e.At(c.head.ID, head.LastSeq)
			c.events = append(c.events, &e)
			placements[i].Seq = head.LastSeq
		}
	}
	return placements
}

func matchesTheModel(t *testing.T, b Backend) {
	// Whatever the order of events, the store must do what is easy to say.
	place := b.New(t)
	s := place.Open(t)
	base := NewWorld(t, s, 5)
	rapid.Check(t, func(rt *rapid.T) {
		w := base.On(s)
		m := &model{conversations: make(map[domain.ConversationID]*modelConversation), unique: make(map[string]domain.ConversationID)}
		// Each round has users of its own, for the keys of direct conversations are theirs.
		w.Users = NewWorld(t, s, 5).Users
		r := &operations{T: rt, w: w, m: m}
		rt.Repeat(map[string]func(*rapid.T){
			"append": r.append,
			"change": r.change,
			"reopen": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "often") > 0 {
					return
				}
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = place.Open(t)
				w.Store = s
			},
			"read": r.read,
			"":     r.check,
		})
	})
}

// operations makes random operations on a store and its model.
type operations struct {
	*rapid.T
	w *World
	m *model
	// done are batches that were given before, to be given again.
	done []domain.Draft
	// n numbers the drafts, checks the checks.
	n, checks int
}

func (r *operations) log(rt *rapid.T) Log {
	logs := r.w.Store.Committers()
	return logs[rapid.IntRange(0, len(logs)-1).Draw(rt, "committer")]
}

func (r *operations) conversation(rt *rapid.T) domain.ConversationID {
	if len(r.m.order) == 0 || rapid.IntRange(0, 19).Draw(rt, "missing") == 0 {
		return domain.ConversationID{1, 2, 3}
	}
	return rapid.SampledFrom(r.m.order).Draw(rt, "conversation")
}

func (r *operations) append(rt *rapid.T) {
	var batch []domain.Draft
	for range rapid.IntRange(1, 12).Draw(rt, "drafts") {
		if len(r.done) > 0 && rapid.IntRange(0, 3).Draw(rt, "again") == 0 {
			batch = append(batch, rapid.SampledFrom(r.done).Draw(rt, "which"))
			continue
		}
		id := r.conversation(rt)
		version := int64(1)
		if c := r.m.conversations[id]; c != nil {
			version = c.head.Version - int64(rapid.IntRange(0, 9).Draw(rt, "old")/9)
		}
		r.n++
		u := r.w.Users[rapid.IntRange(0, 4).Draw(rt, "sender")]
		batch = append(batch, domain.Draft{Version: version, Event: &domain.Event{
			Type: domain.EventSendMessage, Conversation: id, Time: int64(r.n), Initiator: u.Principal("d").Initiator(), Action: "sendMessage",
			Sender: domain.SenderID(u.ID), ClientID: fmt.Sprint("client", r.n),
			Message: &domain.Message{
				Conversation: id, Sender: &domain.Initiator{UserID: u.ID, Username: u.Username}, Time: int64(r.n),
				Content: domain.Content{Text: rapid.String().Draw(rt, "text")},
			},
		}})
	}
	r.done = append(r.done, batch...)
	want := r.m.append(batch)
	got, err := r.log(rt).Append(rt.Context(), copies(batch))
	if err != nil {
		rt.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("placements (-want +got):\n%s", diff)
	}
}

func (r *operations) change(rt *rapid.T) {
	var batch []domain.ChangeRequest
	for range rapid.IntRange(1, 4).Draw(rt, "requests") {
		batch = append(batch, r.request(rt))
	}
	want := make([]domain.Decision, len(batch))
	errs := make([]error, len(batch))
	for i := range batch {
		want[i], errs[i] = r.m.change(r.w, &batch[i])
	}
	got, err := r.log(rt).Change(rt.Context(), batch)
	if err != nil {
		rt.Fatal(err)
	}
	for i := range batch {
		if domain.CodeOf(got[i].Err) != domain.CodeOf(errs[i]) {
			rt.Fatalf("request %d: %v, want %v", i, got[i].Err, errs[i])
		}
		if diff := cmp.Diff(want[i].Result.Conversation, got[i].Decision.Result.Conversation); diff != "" {
			rt.Fatalf("request %d (-want +got):\n%s", i, diff)
		}
	}
}

// request makes a request whose decision is the same for the model and the store: its time and id are drawn now.
func (r *operations) request(rt *rapid.T) domain.ChangeRequest {
	w := r.w
	some := func() []int {
		return rapid.SliceOfNDistinct(rapid.IntRange(0, 4), 1, 3, rapid.ID[int]).Draw(rt, "users")
	}
	p := w.User(rapid.IntRange(0, 4).Draw(rt, "who"))
	var c domain.Command
	switch rapid.IntRange(0, 6).Draw(rt, "command") {
	case 0:
		c = &domain.CreateConversation{Direct: true, Participants: w.New(some()...)}
	case 1:
		c = &domain.CreateConversation{Distinct: true, Participants: w.New(some()...)}
	case 2:
		c = &domain.CreateConversation{Title: rapid.StringMatching(`[ -~äö]{0,20}`).Draw(rt, "title"), Participants: w.New(some()...)}
	case 3, 4:
		c = &domain.AddParticipants{UUID: r.conversation(rt), Participants: w.New(some()...)}
	case 5:
		var refs []domain.UserRef
		for _, i := range some() {
			refs = append(refs, w.Ref(i))
		}
		c = &domain.RemoveParticipants{UUID: r.conversation(rt), Participants: refs}
	case 6:
		return fixed(w, w.Rewrite(r.conversation(rt), domain.Seq(rapid.IntRange(1, 30).Draw(rt, "message")),
			rapid.SampledFrom([]string{"", "edited", "edited again"}).Draw(rt, "text")))
	}
	return fixed(w, w.Request(p, c))
}

// fixed makes the time of a decision the same whenever it is run.
func fixed(w *World, r domain.ChangeRequest) domain.ChangeRequest {
	now, decide := w.Now(), r.Decide
	r.Decide = func(h *domain.Heads) (domain.Decision, error) {
		was := w.clock.Swap(now)
		defer w.clock.Store(was)
		return decide(h)
	}
	return r
}

func (r *operations) read(rt *rapid.T) {
	id := r.conversation(rt)
	after, upto := domain.Seq(rapid.IntRange(-1, 30).Draw(rt, "after")), domain.Seq(rapid.IntRange(-1, 40).Draw(rt, "upto"))
	var want []*domain.Event
	if c := r.m.conversations[id]; c != nil {
		for _, e := range c.events {
			if e.Seq > after && e.Seq <= upto {
				want = append(want, e)
			}
		}
	}
	got, err := r.w.Store.Events(rt.Context(), id, after, upto)
	if err != nil {
		rt.Fatal(err)
	}
	if diff := cmp.Diff(want, got, presentOnly()...); diff != "" {
		rt.Fatalf("events (-want +got):\n%s", diff)
	}
}

// check compares the heads, and the memberships of one user, who is another each time.
func (r *operations) check(rt *rapid.T) {
	r.checks++
	i := r.checks % len(r.w.Users)
	h, err := r.w.Store.Heads(rt.Context(), r.w.User(i), domain.Needs{Conversations: r.m.order, Past: true})
	if err != nil {
		rt.Fatal(err)
	}
	if len(h.Conversations) != len(r.m.order) {
		rt.Fatalf("%d conversations, want %d", len(h.Conversations), len(r.m.order))
	}
	for _, c := range h.Conversations {
		want := r.m.conversations[c.ID]
		if diff := cmp.Diff(want.head, c); diff != "" {
			rt.Fatalf("head (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want.past[r.w.Users[i].ID], h.Past[c.ID]); diff != "" {
			rt.Fatalf("intervals of user %d (-want +got):\n%s", r.w.Users[i].ID, diff)
		}
	}
}
