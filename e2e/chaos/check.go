package chaos

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Kind is what a history shows to be wrong.
type Kind string

// The promises that a history can break.
const (
	// Gap: a log's sequence has a hole.
	Gap Kind = "gap in a log"
	// Unstored: a message was acknowledged and is not in the log, or not where the acknowledgement said.
	Unstored Kind = "acknowledged message is not in the log"
	// Twice: a message is in a log more than once.
	Twice Kind = "message is in the log twice"
	// Unasked: a message is in a log that was refused, or that nobody sent.
	Unasked Kind = "refused message is in the log"
	// Lost: an event did not arrive that should have.
	Lost Kind = "event is lost"
	// Repeated: an event arrived again, though it had been acknowledged.
	Repeated Kind = "event is repeated"
	// Reordered: an event arrived after a later one.
	Reordered Kind = "event is out of order"
	// Leaked: an event arrived at somebody who was not entitled to it.
	Leaked Kind = "event is leaked"
	// Differs: an event arrived that is not the one in the log.
	Differs Kind = "event differs from the log"
)

// Problem is a broken promise.
type Problem struct {
	Kind Kind
	Text string
}

func (p Problem) String() string { return string(p.Kind) + ": " + p.Text }

// Check finds all that a history shows to be wrong.
func Check(h *History) []Problem {
	c := &checker{h: h, entitled: make(map[place][]int64)}
	for _, id := range slices.Sorted(maps.Keys(h.Logs)) {
		c.log(id, h.Logs[id])
	}
	c.publishes()
	for i := range h.Devices {
		if d := &h.Devices[i]; d.Durable {
			c.durable(d)
		} else {
			c.live(d)
		}
	}
	return c.problems
}

type checker struct {
	h        *History
	problems []Problem
	// entitled gives the numbers of the events that a user may see.
	entitled map[place][]int64
}

type place struct {
	user         int64
	conversation string
}

func (c *checker) report(kind Kind, format string, args ...any) {
	c.problems = append(c.problems, Problem{kind, fmt.Sprintf(format, args...)})
}

// log checks the numbers of a log, and derives from it who is entitled to what: a participant to everything from the event
// by which it came to the one by which it went, both included.
func (c *checker) log(id string, events []Event) {
	present := make(map[int64]bool)
	for i, ev := range events {
		if ev.Seq != int64(i+1) {
			c.report(Gap, "%s: event %d stands at place %d", id, ev.Seq, i+1)
		}
		going := false
		switch {
		case ev.Type == "createConversation" || ev.Action == "addParticipants" || ev.Action == "joinConversation":
			for _, u := range ev.Users {
				present[u] = true
			}
		case ev.Action == "removeParticipants" || ev.Action == "leaveConversation":
			going = true
		}
		for u := range present {
			at := place{u, id}
			c.entitled[at] = append(c.entitled[at], ev.Seq)
		}
		if going {
			for _, u := range ev.Users {
				delete(present, u)
			}
		}
	}
}

func (c *checker) publishes() {
	type name struct{ conversation, id string }
	at := make(map[name]int64)
	for id, events := range c.h.Logs {
		for _, ev := range events {
			if ev.Message == "" {
				continue
			}
			n := name{id, ev.Message}
			if first, again := at[n]; again {
				c.report(Twice, "%s: %s is event %d and %d", id, ev.Message, first, ev.Seq)
				continue
			}
			at[n] = ev.Seq
		}
	}
	asked := make(map[name]bool, len(c.h.Publishes))
	for _, p := range c.h.Publishes {
		n := name{p.Conversation, p.ID}
		seq, stored := at[n]
		if p.Outcome != Refused || p.Doubtful {
			asked[n] = true
		}
		switch {
		case p.Outcome == Accepted && !stored:
			c.report(Unstored, "%s: %s", p.Conversation, p.ID)
		case p.Outcome == Accepted && p.Seq != 0 && p.Seq != seq:
			c.report(Unstored, "%s: %s was acknowledged as event %d and is %d", p.Conversation, p.ID, p.Seq, seq)
		}
	}
	for n, seq := range at {
		if !asked[n] {
			c.report(Unasked, "%s: %s, event %d", n.conversation, n.id, seq)
		}
	}
}

// sequence is what a device may see of a conversation, and how far it has come.
type sequence struct {
	seqs []int64
	// received is the place after the highest that arrived.
	received int
	// confirmed are the places that were certainly acknowledged, up to the one before it.
	confirmed int
}

// place gives the place of an event in the sequence; false: it is not in it.
func (s *sequence) place(seq int64) (int, bool) { return slices.BinarySearch(s.seqs, seq) }

func (c *checker) sequenceOf(d *Device, conversation string) *sequence {
	seqs := c.entitled[place{d.User, conversation}]
	n, found := slices.BinarySearch(seqs, d.Start[conversation])
	if found {
		n++
	}
	return &sequence{seqs: seqs[n:]}
}

// same checks that what arrived is what the log has.
func (c *checker) same(d *Device, ev *Event) {
	log := c.h.Logs[ev.Conversation]
	if ev.Seq < 1 || ev.Seq > int64(len(log)) {
		return // leaked, or a gap
	}
	if in := log[ev.Seq-1]; in.Type != ev.Type || in.Action != ev.Action || in.Message != ev.Message {
		c.report(Differs, "%s: event %d of %s is %s %s %q, and %s %s %q in the log", d.Name, ev.Seq, ev.Conversation,
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
		if s := sequences[id]; s.received < len(s.seqs) {
			c.report(Lost, "%s: of %s it never got event %d, nor what followed up to %d", d.Name, id, s.seqs[s.received],
				s.seqs[len(s.seqs)-1])
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
		c.same(d, ev)
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
			sequences[id] = &sequence{seqs: c.entitled[place{d.User, id}]}
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
		c.run(d, n, conn, sequences)
		c.begun(d, n, conn, sequences, first)
		if !d.Complete || n < len(d.Connections)-1 {
			continue
		}
		for id, s := range sequences {
			if _, given := first[id]; given && s.received < len(s.seqs) {
				c.report(Lost, "%s, connection %d: event %d of %s and what followed", d.Name, n+1, s.seqs[s.received], id)
			}
		}
	}
}

// begun checks that a live connection was given the messages that were sent after its subscription held.
func (c *checker) begun(d *Device, n int, conn *Connection, sequences map[string]*sequence, first map[string]int) {
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

// Due gives the last event of each conversation that a device is entitled to.
func Due(h *History, d *Device) map[string]int64 {
	c := &checker{h: h, entitled: make(map[place][]int64)}
	due := make(map[string]int64)
	for id, events := range h.Logs {
		c.log(id, events)
		if seqs := c.sequenceOf(d, id).seqs; len(seqs) > 0 {
			due[id] = seqs[len(seqs)-1]
		}
	}
	return due
}
