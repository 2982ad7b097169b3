package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/parley-im/parley/domain"
)

// Next appends deliveries to dst, at most as many as its capacity has room for, of which at most window have QoS 1. It
// gives replies and notices first, then the events that are due: in order within a conversation, the conversations taking
// turns; then signals. When it appends nothing there is nothing to send that the window allows; the next Wake says when that has
// changed, or the caller comes back when the window has opened.
//
// When nothing is at hand it reads the store, where it may have to wait for its turn. An error means that the store could not
// be read now: nothing is lost, and the caller may try again later. Whatever comes together with an error is to be sent as
// ever.
func (s *Session) Next(ctx context.Context, dst []domain.Delivery, window int) ([]domain.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn.end() // what was read is written
	n := 0
	for ; n < len(s.direct) && len(dst) < cap(dst); n++ {
		d := s.direct[n]
		if d.qos > 0 {
			if window == 0 {
				break
			}
			window--
		}
		s.hold(-len(d.publication.Payload))
		dst = append(dst, domain.Delivery{Publication: d.publication, QoS: d.qos, Identifiers: d.identifiers})
	}
	if s.direct = s.direct[n:]; len(s.direct) == 0 {
		s.direct = nil
	}
	for len(s.direct) == 0 && len(s.latest.order) > 0 && len(dst) < cap(dst) {
		if s.latest.of[s.latest.order[0]].qos > 0 {
			if window == 0 {
				break
			}
			window--
		}
		d := s.latest.take()
		s.hold(-len(d.publication.Payload))
		dst = append(dst, domain.Delivery{
			Publication: d.publication, QoS: d.qos, Retain: d.retain, Identifiers: d.identifiers,
		})
	}
	for !s.resuming && len(s.behind) > 0 && len(dst) < cap(dst) {
		c := s.behind[0]
		sub, ok := s.wants(c.id, false)
		if !ok { // unsubscribed meanwhile
			s.drop(c)
			continue
		}
		room := min(cap(dst)-len(dst), turnEvents)
		if sub.qos > 0 {
			room = min(room, window)
		}
		if room == 0 {
			if s.bypass() {
				continue
			}
			break
		}
		entries := c.ready(room)
		if len(entries) == 0 {
			if len(dst) > 0 {
				break // what is at hand need not wait for the store
			}
			if err := s.read(ctx, c); err != nil {
				s.yield(c) // what is due elsewhere may be at hand
				return dst, err
			}
			continue
		}
		for _, e := range entries {
			sub := sub
			if s.isOwn(e.event) {
				if sub, ok = s.wants(c.id, true); !ok {
					s.sent(c.id, e.event.Seq)
					s.arrived(c.id, e.event.Seq)
					continue
				}
			}
			s.sent(c.id, e.event.Seq)
			if sub.qos > 0 {
				window--
			}
			dst = append(dst, domain.Delivery{
				Publication: s.g.withLinks(e).publication(s.principal), QoS: sub.qos, Identifiers: sub.identifiers,
				Conversation: e.event.Conversation, Seq: e.event.Seq,
			})
		}
		s.passed(c, entries[len(entries)-1].event.Seq)
	}
	if len(s.behind) == 0 {
		s.behind = nil
		s.returning = s.resuming
	}
	n = 0
	for ; n < len(s.signals) && len(dst) < cap(dst); n++ {
		d := s.signals[n]
		s.hold(-len(d.publication.Payload))
		dst = append(dst, domain.Delivery{Publication: d.publication, Identifiers: d.identifiers})
	}
	if s.signals = s.signals[n:]; len(s.signals) == 0 {
		s.signals = nil
	}
	return dst, nil
}

// bypass brings a conversation to the front that needs no window, where the first one waits for it; false: there is
// none. The caller holds mu.
func (s *Session) bypass() bool {
	if o, all := s.subscriptions[domain.Filter{Kind: domain.EventsTopic}]; all && o.QoS > 0 {
		return false // then every conversation needs it
	}
	i := slices.IndexFunc(s.behind, func(c *cursor) bool {
		sub, ok := s.wants(c.id, false)
		return !ok || sub.qos == 0
	})
	if i < 0 {
		return false
	}
	c := s.behind[i]
	s.behind = slices.Insert(slices.Delete(s.behind, i, i+1), 0, c)
	return true
}

func (s *Session) isOwn(ev *domain.Event) bool {
	return ev.Initiator.UserID == s.principal.User && s.principal.User != 0 &&
		ev.Initiator.Device == s.principal.Device
}

// ready gives up to limit events that are due and at hand.
func (c *cursor) ready(limit int) []*entry {
	next := c.spans[0].next
	for len(c.page) > 0 && c.page[0].event.Seq < next {
		c.page = c.page[1:]
	}
	if len(c.page) > 0 {
		if c.page[0].event.Seq > c.spans[0].last {
			return nil
		}
		n := 0
		for n < len(c.page) && n < limit && c.page[n].event.Seq <= c.spans[0].last {
			n++
		}
		return c.page[:n]
	}
	if c.stream == nil {
		return nil
	}
	return c.stream.since(next, c.spans[0].last, limit)
}

// read fetches the next due events of c, when it is the session's turn. The caller holds mu, which is released meanwhile.
func (s *Session) read(ctx context.Context, c *cursor) error {
	id, sp := c.id, c.spans[0]
	upto := min(sp.last, pageEnd(sp.next))
	c.outdated = false
	s.g.readers.add(id, s)
	lane, returning := s.g.lagging, s.returning
	if returning {
		lane = s.g.returning
	}
	s.turn.end()
	s.mu.Unlock()
	leave, err := lane.enter(ctx)
	var page []*entry
	if err == nil {
		page, err = s.g.pages.get(ctx, id, sp.next, upto, func() ([]*entry, error) { return s.g.prepared(ctx, id, sp.next, upto) })
		if err != nil || !returning {
			leave()
		}
	}
	s.mu.Lock()
	if err != nil {
		return err
	}
	if returning {
		// What comes after the read is the larger part of the work.
		s.turn = newTurn(leave)
	}
	if s.at[id] != c || c.withheld || c.outdated || c.spans[0] != sp && c.spans[0].next != sp.next {
		return nil // unsubscribed, and perhaps subscribed again, meanwhile; or what was read is no longer so, or may not be
	}
	if len(page) == 0 {
		s.passed(c, upto) // withheld or gone; there is nothing to wait for
		return nil
	}
	c.page = slices.Clone(page)
	return nil
}

// prepared reads events from the store, and makes them ready to be sent.
func (g *Gateway) prepared(ctx context.Context, id domain.ConversationID, from, upto domain.Seq) ([]*entry, error) {
	g.metrics.catchupReads.Inc()
	events, err := g.page(ctx, id, from-1, upto)
	if err != nil {
		return nil, err
	}
	page := make([]*entry, len(events))
	for i, ev := range events {
		page[i] = newEntry(ev, time.Time{})
		page[i].once.Do(page[i].encode)
	}
	return page, nil
}

// passed moves c beyond seq. When nothing more is due there the session forgets it; else the next conversation has
// its turn, but not before what was read for this one is used up: a session holds one page, however many conversations
// it is behind in. The caller holds mu.
func (s *Session) passed(c *cursor, seq domain.Seq) {
	c.spans[0].next = seq + 1
	for len(c.page) > 0 && c.page[0].event.Seq <= seq {
		c.page[0] = nil
		c.page = c.page[1:]
	}
	if c.spans[0].next > c.spans[0].last {
		c.spans, c.page = c.spans[1:], nil
	}
	if len(c.spans) == 0 {
		s.drop(c)
		return
	}
	if len(c.page) == 0 {
		s.yield(c)
	}
}

// yield lets the next conversation have its turn, if c is the first. The caller holds mu.
func (s *Session) yield(c *cursor) {
	if len(s.behind) > 1 && s.behind[0] == c {
		s.behind = append(s.behind[1:], c)
	}
}

// drop forgets the first cursor. The caller holds mu.
func (s *Session) drop(c *cursor) {
	s.behind = s.behind[1:]
	delete(s.at, c.id)
	s.g.readers.remove(c.id, s)
}

// Done says that a delivery has arrived: it was acknowledged, or written if its QoS is 0.
func (s *Session) Done(d domain.Delivery) {
	s.mu.Lock()
	ends := s.last != nil && s.last == d.Publication
	if d.Seq > 0 {
		s.arrived(d.Conversation, d.Seq)
	}
	s.mu.Unlock()
	if ends {
		s.sink.Close(s.farewell)
	}
}

// Skipped says that a delivery was larger than the client takes. It counts as arrived (MQTT 5, section 3.1.2.11.4).
// The inbox tells which one it was.
func (s *Session) Skipped(d domain.Delivery) {
	s.Done(d)
	if d.Seq == 0 || s.principal.User == 0 {
		return
	}
	topic := domain.Topic{Kind: domain.InboxTopic, User: s.principal.Username}
	s.push(topic, &domain.Publication{Topic: topic.String(), Payload: encode(domain.Notice{
		Type: domain.NoticeEventSkipped, Time: domain.Millis(s.g.now()), Conversation: &d.Conversation, Seq: d.Seq,
		Size: len(d.Publication.Payload),
	})})
}
