package chaos

import (
	"fmt"
	"slices"
	"time"
)

// message is what a log, and those who asked for changes, say about a message.
type message struct {
	// edits are the numbers of its editMessage events, removed that of its removeMessage event; 0: there is none.
	edits   []int64
	removed int64
	// texts is what it said after so many edits, as far as that is known.
	texts map[int]string
	// asked are the changes that were not refused.
	asked []*Rewrite
}

// message notes an event that is about a message.
func (c *checker) message(id string, ev *Event) {
	at := place{ev.Of, id}
	m := c.messages[at]
	switch {
	case ev.Type == "sendMessage":
		c.messages[place{ev.Seq, id}] = &message{texts: make(map[int]string)}
	case ev.Type != "editMessage" && ev.Type != "removeMessage":
	case m == nil:
		c.report(Unasked, "%s: event %d is about event %d, which is no message", id, ev.Seq, ev.Of)
	case m.removed > 0:
		c.report(Twice, "%s: event %d changes the message %d that event %d had removed", id, ev.Seq, ev.Of, m.removed)
	case ev.Type == "editMessage":
		m.edits = append(m.edits, ev.Seq)
	default:
		m.removed = ev.Seq
	}
}

// rewrites checks that of each message as many changes are in the log as were asked for, and that the log shows what
// became of it.
func (c *checker) rewrites() {
	for i := range c.h.Rewrites {
		w := &c.h.Rewrites[i]
		m := c.messages[place{w.Of, w.Conversation}]
		if m == nil || w.Outcome == Refused {
			continue
		}
		m.asked = append(m.asked, w)
		if w.Outcome == Accepted && !w.Removal && w.Edits > 0 {
			if former, known := m.texts[w.Edits]; known && former != w.Text {
				c.report(Differs, "%s: message %d says %q and %q after %d edits", w.Conversation, w.Of, former, w.Text, w.Edits)
			}
			m.texts[w.Edits] = w.Text
		}
	}
	for at, m := range c.messages {
		where := fmt.Sprintf("%s: message %d", at.conversation, at.of)
		accepted, asked, removals := 0, 0, 0
		for _, w := range m.asked {
			switch {
			case w.Removal:
				removals++
				if w.Outcome == Accepted && m.removed == 0 {
					c.report(Unstored, "%s is not removed", where)
				}
			case w.Outcome == Accepted:
				accepted++
				fallthrough
			default:
				asked++
			}
		}
		switch {
		case len(m.edits) < accepted:
			c.report(Unstored, "%s: %d edits of %d", where, len(m.edits), accepted)
		case len(m.edits) > asked && accepted == asked:
			c.report(Twice, "%s: %d edits instead of %d", where, len(m.edits), asked)
		case len(m.edits) > asked:
			c.report(Unasked, "%s: %d edits, asked for were %d", where, len(m.edits), asked)
		}
		if m.removed > 0 && removals == 0 {
			c.report(Unasked, "%s is removed", where)
		}
	}
	for _, events := range c.h.Logs {
		for i := range events {
			c.shows("the log", &events[i], time.Time{})
			c.present("the log", &events[i])
		}
	}
}

// shows checks that what an event shows of its message is something that this has been, and was still when it was asked
// for, or when the connection was opened.
func (c *checker) shows(who string, ev *Event, asked time.Time) {
	m := c.messages[place{ev.Of, ev.Conversation}]
	if m == nil {
		return
	}
	where := fmt.Sprintf("%s: event %d of %s", who, ev.Seq, ev.Conversation)
	if ev.Type == "removeMessage" || ev.Shows.Removed {
		if ev.Shows.Text != "" {
			c.report(Stale, "%s shows %q of what is removed", where, ev.Shows.Text)
		}
		if m.removed == 0 {
			c.report(Differs, "%s shows as removed what is not", where)
		}
		return
	}
	least := 0
	if n, ok := slices.BinarySearch(m.edits, ev.Seq); ok {
		least = n + 1
	}
	for _, w := range m.asked {
		if w.Outcome != Accepted || !w.Answered.Before(asked) {
			continue
		}
		if w.Removal {
			c.report(Stale, "%s shows %q, which had been removed", where, ev.Shows.Text)
			return
		}
		least = max(least, w.Edits)
	}
	text, known := m.texts[ev.Shows.Edits]
	switch {
	case ev.Shows.Edits < least:
		c.report(Stale, "%s shows edit %d, and %d had been made", where, ev.Shows.Edits, least)
	case ev.Shows.Edits > len(m.edits):
		c.report(Differs, "%s shows edit %d of %d", where, ev.Shows.Edits, len(m.edits))
	case known && text != ev.Shows.Text:
		c.report(Differs, "%s shows %q instead of %q", where, ev.Shows.Text, text)
	case !known && !slices.ContainsFunc(m.asked, func(w *Rewrite) bool { return w.Text == ev.Shows.Text }):
		c.report(Unasked, "%s shows %q", where, ev.Shows.Text)
	}
	m.texts[ev.Shows.Edits] = ev.Shows.Text
}

// present checks that an event that was asked for in the end shows what its message is then.
func (c *checker) present(who string, ev *Event) {
	m := c.messages[place{ev.Of, ev.Conversation}]
	if m == nil || ev.Type == "removeMessage" {
		return
	}
	if ev.Shows.Removed != (m.removed > 0) || m.removed == 0 && ev.Shows.Edits != len(m.edits) {
		c.report(Stale, "%s: event %d of %s shows %+v of a message with %d edits, removed by event %d", who, ev.Seq, ev.Conversation,
			ev.Shows, len(m.edits), m.removed)
	}
}

// read checks what somebody was shown who asked for the past.
func (c *checker) read(r *Read) {
	who := fmt.Sprintf("user %d", r.User)
	for i := range r.Events {
		ev := &r.Events[i]
		c.same(who, ev)
		c.shows(who, ev, r.Asked)
		if r.Final {
			c.present(who, ev)
		}
	}
	if r.User == 0 {
		return
	}
	mine := c.rights[place{r.User, r.Conversation}]
	if mine == nil {
		mine = &rights{}
	}
	var want []int64
	switch {
	case mine.uber:
		want = mine.seqs
	case !r.Final || mine.state == reading:
		for seq := range int64(len(c.h.Logs[r.Conversation])) {
			want = append(want, seq+1)
		}
	default:
		for seq := range mine.reaches {
			want = append(want, seq+1)
		}
	}
	if r.Final && mine.state == blind || mine.hides(r.Asked, r.Answered) {
		want = nil
	}
	shown := 0
	for i := range r.Events {
		if _, ok := slices.BinarySearch(want, r.Events[i].Seq); ok {
			shown++
			continue
		}
		c.report(Leaked, "%s was shown event %d of %s", who, r.Events[i].Seq, r.Conversation)
	}
	if r.Final && shown < len(want) {
		c.report(Withheld, "%s was shown %d of %d events of %s", who, shown, len(want), r.Conversation)
	}
}
