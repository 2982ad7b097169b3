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
	// Unstored: what was acknowledged is not in the log, or not where the acknowledgement said.
	Unstored Kind = "what was acknowledged is not in the log"
	// Twice: a message, or a change of one, is in a log more than once.
	Twice Kind = "message or change is in the log twice"
	// Unasked: something is in a log that was refused, or that nobody asked for.
	Unasked Kind = "what was refused is in the log"
	// Lost: an event did not arrive that should have.
	Lost Kind = "event is lost"
	// Repeated: an event arrived again, though it had been acknowledged.
	Repeated Kind = "event is repeated"
	// Reordered: an event arrived after a later one.
	Reordered Kind = "event is out of order"
	// Leaked: an event was shown to somebody who was not entitled to it.
	Leaked Kind = "event is leaked"
	// Differs: an event was shown that is not the one in the log.
	Differs Kind = "event differs from the log"
	// Stale: an event shows what its message had ceased to say.
	Stale Kind = "event shows what is over"
	// Withheld: somebody who asked for the past was not shown all that it is entitled to.
	Withheld Kind = "event of the past is withheld"
)

// Problem is a broken promise.
type Problem struct {
	Kind Kind
	Text string
}

func (p Problem) String() string { return string(p.Kind) + ": " + p.Text }

// Check finds all that a history shows to be wrong.
func Check(h *History) []Problem {
	c := newChecker(h)
	for _, id := range slices.Sorted(maps.Keys(h.Logs)) {
		c.log(id, h.Logs[id])
	}
	c.publishes()
	c.rewrites()
	for i := range h.Devices {
		if d := &h.Devices[i]; d.Durable {
			c.durable(d)
		} else {
			c.live(d)
		}
	}
	for i := range h.Reads {
		c.read(&h.Reads[i])
	}
	return c.problems
}

type checker struct {
	h        *History
	problems []Problem
	// rights gives what a user may see.
	rights map[place]*rights
	// messages gives what became of the messages, by the numbers of their sendMessage events.
	messages map[place]*message
	// begun is when messages were sent.
	begun map[name]time.Time
}

// name is a message, by the id that its sender gave it.
type name struct{ conversation, id string }

// place is a user, or a number, in a conversation.
type place struct {
	of           int64
	conversation string
}

func newChecker(h *History) *checker {
	return &checker{h: h, rights: make(map[place]*rights), messages: make(map[place]*message), begun: make(map[name]time.Time)}
}

func (c *checker) report(kind Kind, format string, args ...any) {
	c.problems = append(c.problems, Problem{kind, fmt.Sprintf(format, args...)})
}

func (c *checker) publishes() {
	at := make(map[name]int64)
	for id, events := range c.h.Logs {
		for _, ev := range events {
			if ev.Type != "sendMessage" {
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
		c.begun[n] = p.Begun
		if p.Outcome != Refused || p.Doubtful {
			asked[n] = true
		}
		if m := c.messages[place{seq, p.Conversation}]; stored && m != nil {
			m.texts[0] = p.Text
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
