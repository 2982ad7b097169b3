package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/parley-im/parley/domain"
)

// deliver announces what the committer stored, in its order, and then completes the commands: an acknowledgement
// always means that the commit and the announcement happened. It ends with the committer.
func (s *shard) deliver() {
	for batch := range s.shipments {
		round := s.g.rounds.Add(1)
		var woken []*Session
		for i := 0; i < len(batch); {
			n := i + 1
			// Messages of one conversation that follow one another are announced together.
			for n < len(batch) && batch[n].joins(batch[i]) {
				n++
			}
			woken = s.g.announce(batch[i:n], round, woken)
			i = n
		}
		for _, w := range woken {
			w.sink.Wake()
		}
		for _, it := range batch {
			s.g.complete(it)
		}
	}
}

// plain reports whether the item leaves the conversation's state as it is.
func (it *item) plain() bool { return it.decided.Conversation == nil }

// joins reports whether the item is announced together with first: both leave the state as it is, and were decided
// on the same one.
func (it *item) joins(first *item) bool {
	return it.stream == first.stream && it.plain() && first.plain() && it.head == first.head
}

// announce tells the sessions concerned of the events of items, all of one conversation. Sessions that now have
// something to send, and had not before in this round, are added to woken.
func (g *Gateway) announce(items []*item, round uint64, woken []*Session) []*Session {
	st := items[0].stream
	var entries []*entry
	// known is the newest event that was found committed: by an attempt that seemed to fail, nobody was told of it.
	var known domain.Seq
	for _, it := range items {
		if it.err != nil || it.receipt.Duplicate {
			known = max(known, it.receipt.Seq)
			continue
		}
		for _, ev := range it.decided.Events {
			entries = append(entries, newEntry(ev, it.accepted))
		}
	}
	if len(entries) == 0 && known == 0 {
		return woken
	}
	// Not the newest head: that may be ahead of these events, and then they are not for those whom it names.
	change, head := items[0].decided.Conversation, items[0].head
	st.announcing.Lock()
	defer st.announcing.Unlock()
	settled := st.settledHead()
	var before []*Session
	moved := settled == nil || settled.Version < head.Version
	if moved {
		before = g.hub.settle(st, head)
		g.noticeMembership(settled, head)
	}
	from, last, online := st.take(known, entries)
	if from == 0 {
		return woken
	}
	contiguous := len(entries) > 0 && from == entries[0].event.Seq && items[0].plain()
	for _, session := range online {
		start := from
		if !contiguous {
			if p, ok := head.Participant(session.principal.User); ok {
				start = max(start, p.JoinedSeq)
			}
		}
		if session.due(st, start, last, round) {
			woken = append(woken, session)
		}
	}
	before = slices.DeleteFunc(slices.Clone(before), func(s *Session) bool { return slices.Contains(online, s) })
	if change != nil {
		for _, session := range before {
			// The last event of those who no longer take part is the one that says so.
			if session.due(st, from, entries[0].event.Seq, round) {
				woken = append(woken, session)
			}
		}
	} else {
		g.bidFarewell(st, before, from)
	}
	for _, session := range g.hub.servicesOf(head.Root) {
		if session.due(st, from, last, round) {
			woken = append(woken, session)
		}
	}
	g.hub.weigh(st, st.holds())
	return woken
}

func newEntry(ev *domain.Event, accepted time.Time) *entry {
	size := 512
	if m := ev.Message; m != nil {
		size += 2 * (len(m.Text) + len(m.Attributes))
		for _, p := range m.Payload {
			size += 2 * len(p)
		}
		for i := range m.Parts {
			size += 2 * len(m.Parts[i].Body)
		}
	}
	if c := ev.ConversationData; c != nil {
		size += 512 * len(c.Participants)
	}
	return &entry{event: ev, accepted: accepted, size: size}
}

// noticeMembership tells users in their inbox that they became or ceased to be participants.
func (g *Gateway) noticeMembership(before, after *domain.Conversation) {
	if before == nil {
		before = &domain.Conversation{}
	}
	now := domain.Millis(g.now())
	var added, removed *domain.Publication
	for i := range after.Participants {
		id := after.Participants[i].UserID
		if _, was := before.Participant(id); was {
			continue
		}
		if added == nil {
			added = &domain.Publication{Payload: encode(domain.Notice{
				Type: domain.NoticeConversationAdded, Time: now, Conversation: &after.ID, ConversationData: after,
			})}
		}
		g.toInbox(id, added.Payload)
	}
	for i := range before.Participants {
		id := before.Participants[i].UserID
		if _, is := after.Participant(id); is && !after.Removed {
			continue
		}
		if removed == nil {
			removed = &domain.Publication{Payload: encode(domain.Notice{
				Type: domain.NoticeConversationRemoved, Time: now, Conversation: &after.ID,
			})}
		}
		g.toInbox(id, removed.Payload)
	}
}

// toInbox sends a notice to the user's sessions that subscribed to the inbox.
func (g *Gateway) toInbox(user domain.UserID, payload []byte) {
	sessions := g.hub.of(user)
	if len(sessions) == 0 {
		return
	}
	topic := domain.Topic{Kind: domain.InboxTopic, User: sessions[0].principal.Username}
	pub := &domain.Publication{Topic: topic.String(), Payload: payload}
	for _, s := range sessions {
		s.push(topic, pub)
	}
}

// complete answers a command.
func (g *Gateway) complete(it *item) {
	if it.twin != nil {
		it.receipt, it.err = it.twin.receipt, it.twin.err
		it.receipt.Duplicate = it.err == nil
		if it.err == nil && it.twin.draft.Event != nil {
			it.receipt.Result = it.twin.receipt.Result
			g.answer(it)
			return
		}
	}
	if it.err == nil && it.receipt.Duplicate && it.receipt.Message != (domain.MessageID{}) {
		// The first acceptance is what the sender gets to see; it is read without holding up the others.
		go g.answerKnown(it)
		return
	}
	g.answer(it)
}

func (g *Gateway) answer(it *item) {
	g.hub.done(it.stream)
	g.metrics.ackSeconds.Observe(g.now().Sub(it.accepted).Seconds())
	it.done(it.receipt, it.err)
}

// answerKnown answers a message that had been accepted before with that first message.
func (g *Gateway) answerKnown(it *item) {
	known := *it // the original is compared with its twins meanwhile
	known.receipt.Result, known.err = g.firstAcceptance(it.receipt)
	g.answer(&known)
}

func (g *Gateway) firstAcceptance(r domain.Receipt) (*domain.Result, error) {
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	events, err := g.page(ctx, r.Conversation, r.Seq-1, r.Seq)
	if err != nil || len(events) != 1 {
		return r.Result, err
	}
	return &domain.Result{Message: events[0].Message}, nil
}

// doubts are the conversations of which nobody knows how far they have come, because a commit was given up.
type doubts struct {
	mu      sync.Mutex
	streams []*stream
	in      map[*stream]bool
	looking bool
}

// resync makes sure that what was committed in spite of an unknown outcome reaches the sessions: once the store
// answers again it looks how far the conversation has come.
func (g *Gateway) resync(st *stream) {
	g.doubts.mu.Lock()
	defer g.doubts.mu.Unlock()
	if g.doubts.in[st] {
		return
	}
	g.hub.stream(st.id) // keeps it in use meanwhile
	if g.doubts.in == nil {
		g.doubts.in = make(map[*stream]bool)
	}
	g.doubts.in[st] = true
	g.doubts.streams = append(g.doubts.streams, st)
	if !g.doubts.looking {
		g.doubts.looking = true
		g.background.Go(g.look)
	}
}

// doubtful gives a conversation to look at, nil when there is none left. It is in doubt no more from then on: what
// happens while it is looked at is a new doubt.
func (g *Gateway) doubtful() *stream {
	g.doubts.mu.Lock()
	defer g.doubts.mu.Unlock()
	if len(g.doubts.streams) == 0 || g.running.Err() != nil {
		g.doubts.streams, g.doubts.in, g.doubts.looking = nil, nil, false
		return nil
	}
	st := g.doubts.streams[0]
	g.doubts.streams = g.doubts.streams[1:]
	delete(g.doubts.in, st)
	return st
}

// look ends the doubts one after the other, as soon as the store answers.
func (g *Gateway) look() {
	for st := g.doubtful(); st != nil; st = g.doubtful() {
		g.insist(func(ctx context.Context) error {
			head, err := g.head(ctx, st.id)
			if err == nil {
				g.caughtUp(st, head)
			}
			return err
		})
		g.hub.done(st)
	}
}

// insist repeats a read until the store answers or the gateway ends.
func (g *Gateway) insist(read func(context.Context) error) {
	for pause := 50 * time.Millisecond; g.running.Err() == nil; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
		err := read(ctx)
		cancel()
		if domain.CodeOf(err) != domain.Unavailable {
			return
		}
		g.logger.Debug("waiting for the store", slog.Any("error", err))
		select {
		case <-time.After(pause):
		case <-g.running.Done():
		}
	}
}

// caughtUp announces what is in the log beyond what was announced.
func (g *Gateway) caughtUp(st *stream, head *domain.Conversation) {
	st.announcing.Lock()
	defer st.announcing.Unlock()
	st.advance(head)
	var before []*Session
	if settled := st.settledHead(); settled == nil || settled.Version < head.Version {
		before = g.hub.settle(st, head)
		g.noticeMembership(settled, head)
	}
	from, last, online := st.take(head.LastSeq, nil)
	if from == 0 {
		return
	}
	round := g.rounds.Add(1)
	for _, session := range slices.Concat(online, g.hub.servicesOf(head.Root)) {
		start := from
		if p, ok := head.Participant(session.principal.User); ok {
			start = max(start, p.JoinedSeq)
		}
		if session.due(st, start, last, round) {
			session.sink.Wake()
		}
	}
	before = slices.DeleteFunc(slices.Clone(before), func(s *Session) bool { return slices.Contains(online, s) })
	g.bidFarewell(st, before, from)
}

// bidFarewell tells sessions whose users no longer take part of the events from the given one up to the one that
// says so. Which one that is, the store has to be asked, for the change was not made by a command at hand.
func (g *Gateway) bidFarewell(st *stream, sessions []*Session, from domain.Seq) {
	if len(sessions) == 0 {
		return
	}
	g.background.Go(func() {
		for _, session := range sessions {
			var left domain.Seq
			g.insist(func(ctx context.Context) (err error) {
				left, err = g.left(ctx, session.principal, st.id)
				return err
			})
			st.announcing.Lock()
			head := st.settledHead()
			back := false
			if head != nil {
				_, back = head.Participant(session.principal.User)
			}
			if !back && session.due(st, from, left, g.rounds.Add(1)) {
				session.sink.Wake()
			}
			st.announcing.Unlock()
		}
	})
}

// left gives the number of the event by which a user left a conversation, 0 if it did not.
func (g *Gateway) left(ctx context.Context, p domain.Principal, id domain.ConversationID) (seq domain.Seq, err error) {
	defer g.contain("reading a membership", &err)
	heads, err := g.history.Heads(ctx, p, domain.Needs{Conversation: id, Past: true})
	if err != nil {
		return 0, err
	}
	if past := heads.Past[id]; len(past) > 0 {
		seq = past[len(past)-1].To
	}
	return seq, nil
}
