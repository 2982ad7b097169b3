package chaos

import (
	"slices"
	"time"
)

// rights is what a log says about one user: when it took part and was allowed to read.
type rights struct {
	state standing
	// seqs are the numbers of the events of its times, the ones included by which they began and ended.
	seqs []int64
	// blind are the times without permission to read while it took part.
	blind []blindness
	uber  bool
	// reaches is up to where it may ask for the past, 0: nowhere; while it takes part that is up to the end.
	reaches int64
}

// standing is how a user stands to a conversation.
type standing int

const (
	absent standing = iota
	blind
	reading
)

// blindness is a time without permission to read: from one event to another, nil: it goes on.
type blindness struct{ from, to *Event }

// log checks the numbers of a log, and derives from it who is entitled to what: a participant who may read to everything
// from the event by which that began to the one by which it ended, both included.
func (c *checker) log(id string, events []Event) {
	all := make(map[int64]*rights)
	for i := range events {
		ev := &events[i]
		if ev.Seq != int64(i+1) {
			c.report(Gap, "%s: event %d stands at place %d", id, ev.Seq, i+1)
		}
		for _, u := range ev.Users {
			if all[u] == nil {
				all[u] = &rights{uber: events[0].Uber}
				c.rights[place{u, id}] = all[u]
			}
		}
		for u, r := range all {
			r.pass(ev, u)
		}
		c.message(id, ev)
	}
}

// pass takes the next event of the log into account.
func (r *rights) pass(ev *Event, user int64) {
	before, after := r.state, r.state
	if slices.Contains(ev.Users, user) {
		switch {
		case ev.Type == "createConversation" || ev.Action == "addParticipants" || ev.Action == "joinConversation" ||
			ev.Action == "editParticipants":
			after = reading
			if slices.Contains(ev.Blind, user) {
				after = blind
			}
		case ev.Action == "removeParticipants" || ev.Action == "leaveConversation":
			after = absent
		}
	}
	r.state = after
	if before == reading || after == reading {
		r.seqs = append(r.seqs, ev.Seq)
	}
	if before == reading {
		r.reaches = ev.Seq
	}
	if before != blind && after == blind {
		r.blind = append(r.blind, blindness{from: ev})
	}
	if before == blind && after != blind {
		r.blind[len(r.blind)-1].to = ev
	}
}

// unsure reports whether what the event told may have been under way still at a time: it was not answered before.
func (ev *Event) unsure(at time.Time) bool { return ev.Answered.IsZero() || !ev.Answered.Before(at) }

// hides reports whether what arrived at a time must not have, because the user had no permission to read from before
// the connection was opened.
func (r *rights) hides(opened, arrived time.Time) bool {
	return slices.ContainsFunc(r.blind, func(b blindness) bool {
		return !b.from.unsure(opened) && (b.to == nil || arrived.Before(b.to.Asked))
	})
}

// Due gives the last event of each conversation that a device is still to be sent, and has been unless it lags. What is
// withheld is not.
func Due(h *History, d *Device) map[string]int64 {
	c := newChecker(h)
	due := make(map[string]int64)
	for id, events := range h.Logs {
		c.log(id, events)
		s := c.sequenceOf(d, id)
		if n := len(s.seqs); n > 0 && s.rights.state != blind {
			due[id] = s.seqs[n-1]
		}
	}
	return due
}
