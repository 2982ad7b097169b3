package chaos

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// sequence is what a device may see of a conversation, and how far it has come.
type sequence struct {
	rights *rights
	seqs   []int64
	// received is the place after the highest that arrived.
	received int
	// confirmed are the places that were certainly acknowledged, up to the one before it.
	confirmed int
}

// place gives the place of an event in the sequence; false: it is not in it.
func (s *sequence) place(seq int64) (int, bool) { return slices.BinarySearch(s.seqs, seq) }

func (c *checker) sequenceOf(d *Device, conversation string) *sequence {
	r := c.rights[place{d.User, conversation}]
	if r == nil {
		r = &rights{}
	}
	n := 0
	if d.Durable {
		var found bool
		if n, found = slices.BinarySearch(r.seqs, d.Start[conversation]); found {
			n++
		}
	}
	return &sequence{rights: r, seqs: r.seqs[n:]}
}

// same checks that what arrived is what the log has.
func (c *checker) same(who string, ev *Event) {
	log := c.h.Logs[ev.Conversation]
	if ev.Seq < 1 || ev.Seq > int64(len(log)) {
		return // leaked, or a gap
	}
	if in := &log[ev.Seq-1]; in.Type != ev.Type || in.Action != ev.Action || in.Message != ev.Message || in.Of != ev.Of {
		c.report(Differs, "%s: event %d of %s is %s %s %q, and %s %s %q in the log", who, ev.Seq, ev.Conversation,
			ev.Type, ev.Action, ev.Message, in.Type, in.Action, in.Message)
	}
}

func (c *checker) durable(d *Device) {
	sequences := make(map[string]*sequence)
	for id := range c.h.Logs {
		sequences[id] = c.sequenceOf(d, id)
	}
	for n := range d.Connections {
		conn := &d.Connections[n]
		if n > 0 && !conn.Present {
			c.report(Lost, "%s: its session is not present at its connection number %d, %s", d.Name, n+1,
				conn.Opened.Format(time.StampMilli))
		}
		if n > 0 {
			c.settle(&d.Connections[n-1], conn.Opened, sequences)
		}
		c.run(d, n, conn, sequences)
	}
	if !d.Complete {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(sequences)) {
		if s := sequences[id]; s.received < len(s.seqs) && s.rights.state != blind {
			c.report(Lost, "%s: of %s it never got event %d, nor what followed up to %d", d.Name, id, s.seqs[s.received],
				s.seqs[len(s.seqs)-1])
		}
	}
}

// revoked checks that a connection was given no message that was sent after its token had been made worthless.
func (c *checker) revoked(d *Device, n int, conn *Connection) {
	i := slices.IndexFunc(c.h.Revocations, func(r Revocation) bool { return r.User == d.User && conn.Token.Before(r.Asked) })
	if i < 0 || conn.Token.IsZero() {
		return
	}
	for j := range conn.Deliveries {
		ev := &conn.Deliveries[j].Event
		if ev.Type == "sendMessage" && c.begun[name{ev.Conversation, ev.Message}].After(c.h.Revocations[i].Answered) {
			c.report(Leaked, "%s, connection %d (%s): event %d of %s, sent when its token had been revoked", d.Name, n+1,
				conn.Opened.Format(time.StampMilli), ev.Seq, ev.Conversation)
		}
	}
}

// settle notes what a connection has certainly acknowledged by the time at which the next one began: of each conversation
// as far as there is no hole.
func (c *checker) settle(conn *Connection, until time.Time, sequences map[string]*sequence) {
	type reach struct {
		from, to time.Time // in between, the gateway has handled the latest of the acknowledgements so far
		hole     bool
	}
	reached := make(map[string]*reach)
	for i := range conn.Deliveries {
		dv := &conn.Deliveries[i]
		s, r := sequences[dv.Conversation], reached[dv.Conversation]
		if s == nil || r != nil && r.hole {
			continue
		}
		if r == nil {
			r = &reach{}
			reached[dv.Conversation] = r
		}
		if dv.Confirmed.IsZero() || !dv.Confirmed.Before(until) {
			r.hole = true
			continue
		}
		sent := dv.Acknowledged
		if sent.IsZero() {
			sent = dv.Confirmed
		}
		if sent.After(r.from) {
			r.from = sent
		}
		if dv.Confirmed.After(r.to) {
			r.to = dv.Confirmed
		}
		if at, ok := s.place(dv.Seq); ok && !c.shaky(r.from, r.to) {
			s.confirmed = max(s.confirmed, at+1)
		}
	}
}

// shaky reports whether what was handled at some time in between may have been forgotten: on a slow network the word of a
// gateway arrives when it has long been killed.
func (c *checker) shaky(from, to time.Time) bool {
	return slices.ContainsFunc(c.h.Shaky, func(p Period) bool { return p.overlaps(from, to) })
}

// run checks one connection of a durable device: in each conversation it goes on with the first event that was not
// acknowledged, at the latest, and then one after the other.
func (c *checker) run(d *Device, n int, conn *Connection, sequences map[string]*sequence) {
	next := make(map[string]int)
	seen := make(map[place]bool)
	for i := range conn.Deliveries {
		ev := &conn.Deliveries[i].Event
		c.same(d.Name, ev)
		c.shows(d.Name, ev, conn.Opened)
		where := fmt.Sprintf("%s, connection %d (%s): event %d of %s", d.Name, n+1, conn.Opened.Format(time.StampMilli), ev.Seq,
			ev.Conversation)
		s := sequences[ev.Conversation]
		at, ok := 0, false
		if s != nil {
			at, ok = s.place(ev.Seq)
		}
		if !ok {
			c.report(Leaked, "%s", where)
			continue
		}
		if s.rights.hides(conn.Opened, conn.Deliveries[i].Arrived) {
			c.report(Leaked, "%s, while it had no permission to read", where)
		}
		key := place{ev.Seq, ev.Conversation}
		due, begun := next[ev.Conversation]
		switch {
		case seen[key]:
			c.report(Repeated, "%s, in the same connection", where)
			continue
		case begun && at < due:
			c.report(Reordered, "%s came after event %d", where, s.seqs[due-1])
		case begun && at > due:
			c.report(Lost, "%s came where %d was due", where, s.seqs[due])
		case !begun && at > s.received:
			c.report(Lost, "%s came where %d was due", where, s.seqs[s.received])
		case !begun && at < s.confirmed:
			c.report(Repeated, "%s came, though all up to %d was acknowledged", where, s.seqs[s.confirmed-1])
		}
		seen[key] = true
		next[ev.Conversation] = max(due, at+1)
		s.received = max(s.received, at+1)
	}
}

// live checks a device whose sessions end with their connections: each is given what happens, one after the other, from
// the first message on that was sent after its subscription held.
func (c *checker) live(d *Device) {
	for n := range d.Connections {
		conn := &d.Connections[n]
		sequences := make(map[string]*sequence)
		for id := range c.h.Logs {
			sequences[id] = c.sequenceOf(d, id)
		}
		first := make(map[string]int)
		for i := range conn.Deliveries {
			ev := &conn.Deliveries[i].Event
			if s := sequences[ev.Conversation]; s != nil {
				if at, ok := s.place(ev.Seq); ok {
					if _, known := first[ev.Conversation]; !known {
						first[ev.Conversation], s.received = at, at
					}
				}
			}
		}
		c.revoked(d, n, conn)
		c.run(d, n, conn, sequences)
		c.opening(d, n, conn, sequences, first)
		if !d.Complete || n < len(d.Connections)-1 {
			continue
		}
		for id, s := range sequences {
			if _, given := first[id]; given && s.received < len(s.seqs) && s.rights.state != blind {
				c.report(Lost, "%s, connection %d: event %d of %s and what followed", d.Name, n+1, s.seqs[s.received], id)
			}
		}
	}
}

// opening checks that a live connection was given the messages that were sent after its subscription held.
func (c *checker) opening(d *Device, n int, conn *Connection, sequences map[string]*sequence, first map[string]int) {
	if conn.Subscribed.IsZero() {
		return
	}
	for i := range c.h.Publishes {
		p := &c.h.Publishes[i]
		at, given := first[p.Conversation]
		if !given || p.Seq == 0 || p.Outcome != Accepted || !p.Begun.After(conn.Subscribed) {
			continue
		}
		s := sequences[p.Conversation]
		if mine, ok := s.place(p.Seq); ok && mine < at {
			c.report(Lost, "%s, connection %d: event %d of %s, which was sent after it had subscribed", d.Name, n+1, p.Seq,
				p.Conversation)
		}
	}
}
