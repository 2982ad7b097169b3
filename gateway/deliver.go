package gateway

import (
	"context"
	"log/slog"
	"slices"
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
			for n < len(batch) && batch[n].stream == batch[i].stream && batch[i].plain() && batch[n].plain() {
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

// announce tells the sessions concerned of the events of items, all of one conversation. Sessions that now have
// something to send, and had not before in this round, are added to woken.
func (g *Gateway) announce(items []*item, round uint64, woken []*Session) []*Session {
	st := items[0].stream
	var entries []*entry
	for _, it := range items {
		if it.err != nil || it.receipt.Duplicate {
			continue
		}
		for _, ev := range it.decided.Events {
			entries = append(entries, newEntry(ev, it.accepted))
		}
	}
	if len(entries) == 0 {
		return woken
	}
	change := items[0].decided.Conversation
	head := st.Head()
	if change != nil {
		head = change
	}
	st.announcing.Lock()
	defer st.announcing.Unlock()
	settled := st.settledHead()
	if settled == nil && change != nil {
		st.begin()
	}
	var before []*Session
	moved := settled == nil || settled.Version < head.Version
	if moved {
		before = g.hub.settle(st, head)
	}
	from, online := st.append(entries)
	if from == 0 {
		return woken
	}
	last := entries[len(entries)-1].event.Seq
	contiguous := from == entries[0].event.Seq && items[0].plain()
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
	if change != nil {
		for _, session := range before {
			// The last event of those who no longer take part is the one that says so. Where the change was made
			// elsewhere, which one that is cannot be told here.
			if !slices.Contains(online, session) && session.due(st, from, entries[0].event.Seq, round) {
				woken = append(woken, session)
			}
		}
	}
	for _, session := range g.hub.servicesOf(head.Root) {
		if session.due(st, from, last, round) {
			woken = append(woken, session)
		}
	}
	if moved && (settled != nil || change != nil) {
		g.noticeMembership(settled, head)
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
	ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
	defer cancel()
	seq := it.receipt.Seq
	events, err := g.history.Events(ctx, it.receipt.Conversation, seq-1, seq)
	switch {
	case err != nil:
		it.err = err
	case len(events) == 1:
		it.receipt.Result = &domain.Result{Message: events[0].Message}
	}
	g.answer(it)
}

// resync makes sure that what was committed in spite of an unknown outcome reaches the sessions: once the store
// answers again it looks how far the conversation has come.
func (g *Gateway) resync(st *stream) {
	g.hub.stream(st.id) // keeps it in use meanwhile
	g.background.Go(func() {
		defer g.hub.done(st)
		pause := 50 * time.Millisecond
		for g.running.Err() == nil {
			ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
			heads, err := g.history.Heads(ctx, domain.Principal{Admin: true}, domain.Needs{Conversation: st.id})
			cancel()
			if err == nil {
				g.caughtUp(st, heads.Conversation)
				return
			}
			g.logger.Debug("waiting for the store", slog.Any("error", err))
			select {
			case <-time.After(pause):
			case <-g.running.Done():
			}
			pause = min(2*pause, time.Second)
		}
	})
}

// caughtUp announces what is in the log beyond what was announced.
func (g *Gateway) caughtUp(st *stream, head *domain.Conversation) {
	if head == nil {
		return
	}
	st.announcing.Lock()
	defer st.announcing.Unlock()
	st.advance(head)
	if settled := st.settledHead(); settled != nil && settled.Version < head.Version {
		g.hub.settle(st, head)
		g.noticeMembership(settled, head)
	}
	from, online := st.skipTo(head.LastSeq)
	if from == 0 {
		return
	}
	round := g.rounds.Add(1)
	for _, session := range append(slices.Clone(online), g.hub.servicesOf(head.Root)...) {
		start := from
		if p, ok := head.Participant(session.principal.User); ok {
			start = max(start, p.JoinedSeq)
		}
		if session.due(st, start, head.LastSeq, round) {
			session.sink.Wake()
		}
	}
}
