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
			if batch[i].stream == nil {
				i = n
				continue
			}
			// Messages of one conversation that follow one another are announced together.
			for n < len(batch) && batch[n].joins(batch[i]) {
				n++
			}
			woken = s.g.announceSafely(batch[i:n], round, woken)
			i = n
		}
		for _, w := range woken {
			w.sink.Wake()
		}
		for _, it := range batch {
			if it.err == nil {
				s.g.notify(it.principal, it.decided.Notices)
				s.g.told(it)
			}
			s.g.complete(it)
		}
	}
}

// announceSafely is announce; a defect in it costs the sessions a look at the log, not the gateway its life.
func (g *Gateway) announceSafely(items []*item, round uint64, woken []*Session) (all []*Session) {
	var err error
	defer func() {
		if err != nil {
			all = woken
			g.resync(items[0].stream)
		}
	}()
	defer g.contain("announcing events", &err)
	return g.announce(items, round, woken)
}

// told tells what a committed command leads to beside events and notices.
func (g *Gateway) told(it *item) {
	for _, sig := range it.decided.Signals {
		it.stream.signal(g, sig)
	}
	if it.decided.Read != nil {
		g.remindOthers(it.principal, it.decided.Read.Conversation)
	}
}

// plain reports whether the item leaves the conversation's state as it is.
func (it *item) plain() bool { return it.decided.Conversation == nil }

// joins reports whether the item is announced together with first: both leave the state as it is, and were decided
// on the same one.
func (it *item) joins(first *item) bool {
	return it.stream == first.stream && it.plain() && first.plain() && it.head == first.head
}

// news is what the sessions concerned are to be told of a conversation.
type news struct {
	// head is the state in which the events happened; changed: the one entry led to it.
	head    *domain.Conversation
	changed bool
	// known is the newest event that is committed without being at hand, entries are those that are, in ascending order.
	known   domain.Seq
	entries []*entry
}

// announce tells the sessions concerned of the events of items, all of one conversation. Sessions that now have
// something to send, and had not before in this round, are added to woken.
func (g *Gateway) announce(items []*item, round uint64, woken []*Session) []*Session {
	st := items[0].stream
	// Not the newest head: that may be ahead of these events, and then they are not for those whom it names.
	n := news{head: items[0].head, changed: !items[0].plain()}
	for _, it := range items {
		if it.err != nil || it.receipt.Duplicate {
			// Perhaps committed by an attempt that seemed to fail: then nobody was told of it.
			n.known = max(n.known, it.receipt.Seq)
			continue
		}
		for _, ev := range it.decided.Events {
			n.entries = append(n.entries, newEntry(ev, it.accepted))
		}
	}
	if n.changed && n.head.LastSeq > n.entries[len(n.entries)-1].event.Seq {
		// Found committed by an earlier attempt, and the state is a later one: the log says what led there.
		n = news{head: n.head, known: n.head.LastSeq}
	}
	if len(n.entries) == 0 && n.known == 0 {
		return woken
	}
	if err := g.fill(st, n); err != nil {
		g.logger.Warn("events are announced later", slog.Any("error", err))
		g.resync(st)
		return woken
	}
	st.announcing.Lock()
	defer st.announcing.Unlock()
	return g.tell(st, n, round, woken)
}

// tell does what announce says. The caller holds announcing.
func (g *Gateway) tell(st *stream, n news, round uint64, woken []*Session) []*Session {
	settled, reached := st.announced()
	var before []*Session
	moved := settled == nil || settled.Version < n.head.Version
	if moved {
		before = g.hub.settle(st, n.head)
		g.noticeMembership(settled, n.head)
		g.sight(st.id, settled, n.head)
	} else {
		g.hub.greet(st)
	}
	from, last, online := st.take(n.known, n.entries)
	if from == 0 {
		return woken
	}
	if n.known > reached || slices.ContainsFunc(n.entries, (*entry).rewrites) {
		g.outdate(st.id)
	}
	contiguous := !n.changed && len(n.entries) > 0 && from == n.entries[0].event.Seq
	var was, is map[*Session]bool
	if n.changed {
		was, is = setOf(before), setOf(online)
	}
	for _, session := range online {
		start := from
		if !contiguous {
			if p, ok := n.head.Participant(session.principal.User); ok {
				start = max(start, p.JoinedSeq)
			}
			if n.changed && moved && !was[session] {
				start = max(start, n.entries[0].event.Seq) // it could not read what was before
			}
		}
		if session.due(st, start, last, round) {
			woken = append(woken, session)
		}
	}
	if n.changed {
		for _, session := range before {
			if is[session] {
				continue
			}
			// The last event of those who no longer take part, or may no longer read, is the one that says so.
			told, seq := session.due, n.entries[0].event.Seq
			if blind(n.head, session.principal.User) {
				told = session.cut
			}
			if told(st, from, seq, round) {
				woken = append(woken, session)
			}
		}
	}
	for _, session := range g.hub.servicesOf(n.head.Root) {
		if session.due(st, from, last, round) {
			woken = append(woken, session)
		}
	}
	g.hub.weigh(st, st.holds())
	return woken
}

func setOf(sessions []*Session) map[*Session]bool {
	set := make(map[*Session]bool, len(sessions))
	for _, s := range sessions {
		set[s] = true
	}
	return set
}

// fill announces what was committed elsewhere before n, where some of it changed who takes part: each event is for the
// participants of its time, and only the log tells who these were.
func (g *Gateway) fill(st *stream, n news) error {
	upto, version := n.known, n.head.Version
	if len(n.entries) > 0 {
		upto = max(upto, n.entries[0].event.Seq-1)
	}
	if n.changed {
		version--
	}
	for {
		settled, last := st.announced()
		if settled != nil && settled.Version >= version || version == 0 || last >= upto {
			return nil
		}
		ctx, cancel := context.WithTimeout(g.running, g.commitTimeout)
		events, err := g.page(ctx, st.id, last, min(last+pageEvents, upto))
		cancel()
		switch {
		case err != nil:
			return err
		case len(events) == 0:
			return nil // gone from the log: nobody can be told
		}
		for _, session := range g.relate(st, n.head, version, events) {
			session.sink.Wake()
		}
	}
}

// relate announces events of the log one by one, with what they did to the participants, up to the version given. It
// gives the sessions to wake. Every event that changes the state raises the version by one and says what it became, but
// for a removal: that is the last one, and the state that it led to is head.
func (g *Gateway) relate(st *stream, head *domain.Conversation, version int64, events []*domain.Event) (woken []*Session) {
	st.announcing.Lock()
	defer st.announcing.Unlock()
	round := g.rounds.Add(1)
	for _, ev := range events {
		then, last := st.announced()
		if ev.Seq <= last {
			continue // by somebody else meanwhile
		}
		n := news{head: then, entries: []*entry{newEntry(ev, time.Time{})}}
		if ev.ConversationData != nil {
			next := *ev.ConversationData
			next.Root, next.Account, next.Version = head.Root, head.Account, 1
			if then != nil {
				next.Version = min(then.Version+1, version)
			}
			n.head, n.changed = &next, true
		} else if then == nil {
			n.head = head
		}
		woken = g.tell(st, n, round, woken)
	}
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
	if it.stream != nil {
		g.hub.done(it.stream)
	}
	g.metrics.ackSeconds.Observe(g.now().Sub(it.accepted).Seconds())
	if r := it.receipt.Result; it.err == nil && it.receipt.Duplicate && r != nil && r.Message != nil {
		again := *r // the first acceptance may share it
		again.Duplicate = true
		it.receipt.Result = &again
	}
	it.done(it.receipt, it.err)
}

// answerKnown answers a message that had been accepted before with that first message.
func (g *Gateway) answerKnown(it *item) {
	known := *it // the original is compared with its twins meanwhile
	known.receipt.Result, known.err = g.firstAcceptance(it.principal, it.receipt)
	g.answer(&known)
}

// firstAcceptance gives the message that was accepted first as p may read it now: others may have edited it since.
func (g *Gateway) firstAcceptance(p domain.Principal, r domain.Receipt) (*domain.Result, error) {
	seq := int64(r.Seq)
	page, err := g.read(p, &domain.RetransmitEvents{Conversation: r.Conversation, From: &seq, To: &seq})
	switch {
	case err == nil && len(page.Events) == 1:
		return &domain.Result{Message: page.Events[0].Message}, nil
	case err == nil || domain.Unreadable(err):
		return &domain.Result{Message: domain.PlaceOf(r.Conversation, r.Seq)}, nil
	}
	return r.Result, err
}
