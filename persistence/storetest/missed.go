package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/parley-im/parley/domain"
)

// undelivered gives what has reached no device of a user, as it comes in pages of limit.
func (w *World) undelivered(user, limit int, only, except []domain.ConversationID) []domain.Stretch {
	w.tb.Helper()
	var list []domain.Stretch
	var after domain.ConversationID
	for {
		page, err := w.Store.Undelivered(w.tb.Context(), w.Users[user].ID, only, except, after, limit)
		must(w.tb, err)
		if list = append(list, page...); len(page) < limit {
			return list
		}
		after = page[len(page)-1].Conversation
	}
}

// delivered says that a device of the user has received events.
func (w *World) delivered(user int, c *domain.Conversation, seq domain.Seq) {
	w.tb.Helper()
	must(w.tb, w.Store.SavePositions(w.tb.Context(), nil, []domain.Mark{{Conversation: c.ID, User: w.Users[user].ID, Seq: seq, Time: 1}}))
}

// may gives a participant other permissions, with one event.
func (w *World) may(log Log, c *domain.Conversation, user int, p domain.Permissions) {
	w.tb.Helper()
	must(w.tb, w.Try(log, w.Edit(c.ID, func(c *domain.Conversation) {
		for i := range c.Participants {
			if c.Participants[i].UserID == w.Users[user].ID {
				c.Participants[i].Permissions = p
			}
		}
	}))[0].Err)
}

func undeliveredFollowsMarks(t *testing.T, b Backend) {
	// Who is told too much sees what it may not, and who is told too little never learns that there was something.
	s := open(t, b)
	w := NewWorld(t, s, 3)
	log := s.Committers()[0]
	is := func(what string, want ...domain.Stretch) {
		t.Helper()
		slices.SortFunc(want, compareStretches)
		equal(t, what, w.undelivered(1, 100, nil, nil), want)
	}
	is("at first")
	c, d, other := w.Group(log, 1), w.Group(log, 1), w.Group(log, 2)
	w.texts(log, c, 3) // 4
	w.texts(log, other, 3)
	is("never there", stretch(c, 1, 4), stretch(d, 1, 1))
	w.delivered(1, c, 2)
	w.delivered(1, d, 1)
	w.delivered(0, c, 4) // somebody else
	is("after the mark", stretch(c, 3, 4))
	equal(t, "some", w.undelivered(1, 100, []domain.ConversationID{d.ID, other.ID}, nil), []domain.Stretch(nil))
	equal(t, "one", w.undelivered(1, 100, []domain.ConversationID{c.ID}, nil), []domain.Stretch{stretch(c, 3, 4)})
	equal(t, "none", w.undelivered(1, 100, []domain.ConversationID{}, nil), []domain.Stretch(nil))
	equal(t, "all but one", w.undelivered(1, 100, nil, []domain.ConversationID{c.ID}), []domain.Stretch(nil))

	// Without canRead there is nothing, and of the time without it there never is.
	w.may(log, c, 1, domain.Permissions{CanWrite: true}) // 5
	w.texts(log, c, 1)                                   // 6
	is("without canRead")
	w.may(log, c, 1, domain.Permissions{CanRead: true}) // 7
	is("with canRead again", stretch(c, 3, 5), stretch(c, 7, 7))

	// Who leaves is told nothing, who comes back nothing of between, nor what had arrived before.
	w.delivered(1, c, 5)
	w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(1)}}) // 8
	w.texts(log, c, 1)                                                                                         // 9
	is("left")
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(1)}) // 10
	w.texts(log, c, 1)                                                                    // 11
	is("back", stretch(c, 7, 8), stretch(c, 10, 11))
	w.delivered(1, c, 11)
	is("all delivered")

	w.texts(log, d, 1) // 2
	is("before it is removed", stretch(d, 2, 2))
	must(t, w.Try(log, w.Edit(d.ID, func(c *domain.Conversation) { c.Removed = true }))[0].Err)
	is("removed")
}

func undeliveredComesInPages(t *testing.T, b Backend) {
	// What falls between two pages is lost to the user.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	var want, some, rest []domain.Stretch
	var ids []domain.ConversationID
	for i := range 15 {
		c := w.Group(log, 1)
		stretches := []domain.Stretch{stretch(c, 1, 1)}
		if i%4 == 1 {
			w.may(log, c, 1, domain.Permissions{CanWrite: true})
			w.may(log, c, 1, domain.Permissions{CanRead: true})
			stretches = []domain.Stretch{stretch(c, 1, 2), stretch(c, 3, 3)}
		}
		want = append(want, stretches...)
		if i%3 == 0 {
			ids, some = append(ids, c.ID), append(some, stretches...)
		} else {
			rest = append(rest, stretches...)
		}
	}
	for _, list := range [][]domain.Stretch{want, some, rest} {
		slices.SortFunc(list, compareStretches)
	}
	for limit := 1; limit <= len(want)+1; limit++ {
		equal(t, fmt.Sprint("pages of ", limit), w.undelivered(1, limit, nil, nil), want)
		equal(t, fmt.Sprint("some in pages of ", limit), w.undelivered(1, limit, ids, nil), some)
		equal(t, fmt.Sprint("the rest in pages of ", limit), w.undelivered(1, limit, nil, ids), rest)
	}
	page, err := s.Undelivered(t.Context(), w.Users[1].ID, nil, nil, domain.ConversationID{}, 0)
	must(t, err)
	equal(t, "no page", page, []domain.Stretch(nil))
}

func newestMessagesCount(t *testing.T, b Backend) {
	// A client that is told of 20 messages and gets 19, or is sent ten thousand events for them, was promised something else.
	s := open(t, b)
	w := NewWorld(t, s, 2)
	log := s.Committers()[0]
	newest := func(what string, n int, of []domain.Stretch, want ...domain.Stretch) {
		t.Helper()
		got, err := s.Newest(t.Context(), of, n)
		must(t, err)
		equal(t, what, got, want)
	}
	newest("nothing", 3, nil)
	c, d := w.Group(log, 1), w.Group(log, 1)
	w.texts(log, c, 4)                                // 5
	must(t, w.Try(log, w.Retitle(c.ID, "t"))[0].Err)  // 6
	w.texts(log, c, 2)                                // 8
	must(t, w.Try(log, w.Retitle(c.ID, "t2"))[0].Err) // 9
	w.texts(log, d, 10)                               // 11
	all := []domain.Stretch{stretch(c, 1, 9)}
	newest("all there are", 6, all, all...)
	newest("more than there are", 100, all, all...)
	newest("five", 5, all, stretch(c, 3, 9))
	newest("three", 3, all, stretch(c, 5, 9))
	newest("two", 2, all, stretch(c, 7, 9))
	newest("one", 1, all, stretch(c, 8, 9))
	newest("of a part", 2, []domain.Stretch{stretch(c, 2, 6)}, stretch(c, 4, 6))
	newest("without messages", 1, []domain.Stretch{stretch(c, 9, 9), stretch(d, 1, 1)}, stretch(c, 9, 9), stretch(d, 1, 1))

	// What is removed does not count.
	w.Change(log, w.User(0), &domain.RemoveMessage{Conversation: c.ID, Message: domain.NewMessageID(c.ID, 7)}) // 10
	newest("after a removal", 2, []domain.Stretch{stretch(c, 1, 10)}, stretch(c, 5, 10))

	// Over the gaps of a membership, and beside others.
	parts := []domain.Stretch{stretch(c, 2, 3), stretch(c, 5, 6), stretch(c, 8, 10), stretch(d, 2, 11)}
	newest("of parts, all", 10, parts, parts...)
	newest("of parts, four", 4, parts, stretch(c, 2, 3), stretch(c, 5, 6), stretch(c, 8, 10), stretch(d, 8, 11))
	newest("of parts, three", 3, parts, stretch(c, 3, 3), stretch(c, 5, 6), stretch(c, 8, 10), stretch(d, 9, 11))
	newest("of parts, two", 2, parts, stretch(c, 5, 6), stretch(c, 8, 10), stretch(d, 10, 11))
	newest("of parts, one", 1, parts, stretch(c, 8, 10), stretch(d, 11, 11))
}
