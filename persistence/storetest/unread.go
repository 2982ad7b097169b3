package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/parley-im/parley/domain"
)

// unread asks what a user has not read.
func (w *World) unread(p domain.Principal, q domain.UnreadQuery) []domain.Unread {
	w.tb.Helper()
	h, err := w.Store.Heads(w.tb.Context(), p, domain.Needs{Unread: &q})
	must(w.tb, err)
	return h.Unread
}

// read marks a conversation as read.
func (w *World) read(log Log, user int, c domain.ConversationID, seq int64) domain.Changed {
	w.tb.Helper()
	return w.Change(log, w.User(user), &domain.MarkAsRead{Conversation: c, Seq: &seq})
}

// counted counts what a user has not read, event by event.
func (w *World) counted(user int, c domain.ConversationID) domain.Unread {
	w.tb.Helper()
	head := w.Head(c)
	part, ok := head.Participant(w.Users[user].ID)
	if !ok {
		w.tb.Fatalf("user %d takes no part", user)
	}
	u := domain.Unread{Conversation: c, LastSeq: head.LastSeq, LastRead: part.LastRead}
	for _, e := range w.Log(c) {
		if e.Type != domain.EventSendMessage || e.Message.Removed {
			continue
		}
		u.LastMessage = e.Message
		if e.Seq <= max(part.LastRead, part.JoinedSeq) || e.Sender == domain.SenderID(part.UserID) {
			continue
		}
		if u.Unread == domain.UnreadMost {
			u.More = true
		} else {
			u.Unread++
		}
		if m := e.Message.Mentions; m != nil && (m.All != nil && *m.All || slices.Contains(m.Users, w.Users[user].Username)) {
			u.Mentioned = true
		}
	}
	return u
}

// mention gives a draft with mentions.
func (w *World) mention(c *domain.Conversation, user int, client string, m domain.Mentions) domain.Draft {
	w.tb.Helper()
	s := &domain.SendMessage{Conversation: c.ID}
	s.ClientID, s.Text, s.Mentions = client, "text", &m
	d, err := domain.Decide(&domain.Heads{Conversation: c, Now: w.Now(), Limits: domain.DefaultLimits()}, w.User(user), s)
	must(w.tb, err)
	return domain.Draft{Event: d.Events[0], Version: c.Version}
}

func unreadIsExact(t *testing.T, b Backend) {
	// The number on the icon: whatever happened in between, it is what one would count by hand.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1, 2)
	rnd := rand.New(rand.NewPCG(1, 2))
	n := 0
	draft := func() domain.Draft {
		n++
		by, client := rnd.IntN(3), fmt.Sprint("m", n)
		switch rnd.IntN(6) {
		case 0:
			return w.mention(c, by, client, domain.Mentions{All: new(true)})
		case 1:
			return w.mention(c, by, client, domain.Mentions{Users: []domain.Username{w.Users[rnd.IntN(3)].Username}})
		}
		return w.Draft(c, by, client, "text")
	}
	for round := range 60 {
		var batch []domain.Draft
		for range 1 + rnd.IntN(4) {
			batch = append(batch, draft())
		}
		// What is known already mentions nobody again.
		placements, err := w.Append(t.Context(), log, slices.Concat(batch, batch[:1])...)
		must(t, err)
		last := placements[len(batch)-1].Seq
		switch rnd.IntN(6) {
		case 0:
			w.read(log, rnd.IntN(3), c.ID, rnd.Int64N(int64(last)+1))
		case 1:
			w.Try(log, w.Rewrite(c.ID, 1+domain.Seq(rnd.Int64N(int64(last))), ""))
		case 2:
			w.Try(log, w.Rewrite(c.ID, 1+domain.Seq(rnd.Int64N(int64(last))), "edited"))
		case 3:
			c = w.Try(log, w.Retitle(c.ID, fmt.Sprint("title", round)))[0].Decision.Conversation
		case 4:
			// Who comes back has nothing to catch up with.
			w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(2)}})
			c = w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}).Decision.Conversation
		}
		for user := range 3 {
			want := w.counted(user, c.ID)
			equal(t, fmt.Sprintf("round %d, user %d", round, user), w.unread(w.User(user), domain.UnreadQuery{Limit: 10}), []domain.Unread{want}, presentOnly()...)
			equal(t, "of the one", w.unread(w.User(user), domain.UnreadQuery{Of: c.ID, Limit: 1}), []domain.Unread{want}, presentOnly()...)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	equal(t, "a stranger's", w.unread(w.User(3), domain.UnreadQuery{Limit: 10}), []domain.Unread(nil), presentOnly()...)
	equal(t, "of another's", w.unread(w.User(3), domain.UnreadQuery{Of: c.ID, Limit: 10}), []domain.Unread(nil), presentOnly()...)
}

func unreadCountsToAThousand(t *testing.T, b Backend) {
	// A count that stops is only honest if it says so, and only cheap if it does not matter what else is in the log.
	w := NewWorld(t, open(t, b), 2)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	n := 0
	send := func(user, count int) {
		t.Helper()
		for count > 0 {
			var batch []domain.Draft
			for range min(count, 250) {
				n++
				batch = append(batch, w.Draft(c, user, fmt.Sprint("m", n), "x"))
			}
			w.Send(log, batch...)
			count -= len(batch)
		}
	}
	check := func(what string, unread int, more bool) {
		t.Helper()
		for _, when := range []string{"first", "again"} { // what was counted is kept
			got := w.unread(w.User(1), domain.UnreadQuery{Of: c.ID, Limit: 1})
			if len(got) != 1 || got[0].Unread != unread || got[0].More != more {
				t.Errorf("%s, %s: %+v, want %d, more %v", what, when, got, unread, more)
			}
		}
	}
	send(0, 1000) // 2 to 1001
	check("a thousand", 1000, false)
	send(1, 150) // to 1151: too many of one's own to be looked at
	check("a thousand, and own ones", 1000, false)
	send(0, 1)
	check("a thousand and one", 1000, true)
	w.read(log, 1, c.ID, 2)
	check("one of them read", 1000, false)
	w.Try(log, w.Rewrite(c.ID, 500, ""))
	check("and one removed", 999, false)
	send(0, 1)
	check("and another one sent", 1000, false)
	w.Try(log, w.Rewrite(c.ID, w.Head(c.ID).LastSeq, ""), w.Rewrite(c.ID, 1100, "")) // the other is an own one
	check("and removed", 999, false)
	w.read(log, 1, c.ID, 1001)
	check("read but for the last", 1, false)
	w.read(log, 1, c.ID, 2)
	check("marked as unread again", 999, false)
	var titles []domain.ChangeRequest
	for i := range 600 {
		titles = append(titles, w.Retitle(c.ID, fmt.Sprint(i)))
	}
	for chunk := range slices.Chunk(titles, 200) {
		c = w.Try(log, chunk...)[len(chunk)-1].Decision.Conversation
	}
	check("behind many other events", 999, false)
	send(0, 3000)
	check("many more", 1000, true)
	w.read(log, 1, c.ID, int64(w.Head(c.ID).LastSeq))
	check("all read", 0, false)
	w.read(log, 1, c.ID, 0)
	check("nothing read", 1000, true)
}

func unreadComesNewestFirst(t *testing.T, b Backend) {
	// A device that shows fifty conversations shows those in which something happened.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	var ids []domain.ConversationID
	big := strings.Repeat("x", 5000)
	for i := range 6 {
		c := w.Group(log, 1)
		ids = append(ids, c.ID)
		text := "small"
		if i%2 == 1 {
			text = big
		}
		w.Send(log, w.Draft(c, 0, "m", text))
	}
	w.read(log, 1, ids[5], 2)
	uber := w.Change(log, w.User(0), &domain.CreateConversation{Uber: true, Participants: w.New(2)}).Decision.Conversation
	w.Send(log, w.Draft(uber, 0, "m", "before"))
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: uber.ID, Participants: w.New(1)})
	deaf := w.Group(log, 1)
	w.Send(log, w.Draft(deaf, 0, "m", "unheard"))
	w.Try(log, w.Edit(deaf.ID, func(c *domain.Conversation) { c.Participants[1].Permissions = domain.Permissions{} }))
	gone := w.Group(log, 1)
	w.Send(log, w.Draft(gone, 0, "m", "gone"))
	w.Try(log, w.Edit(gone.ID, func(c *domain.Conversation) { c.Removed = true }))

	var got []domain.ConversationID
	for i, u := range w.unread(w.User(1), domain.UnreadQuery{Limit: 100}) {
		got = append(got, u.Conversation)
		if i < 6 && (u.LastMessage == nil || u.LastMessage.Text == "" || u.LastMessage.Seq != 2) {
			t.Errorf("conversation %d has the last message %+v", i, u.LastMessage)
		}
		if i == 6 && u.LastMessage != nil {
			t.Errorf("of an uber conversation, from before: %+v", u.LastMessage)
		}
	}
	slices.Reverse(ids)
	equal(t, "all", got, append(slices.Clone(ids), uber.ID))
	got = nil
	for _, u := range w.unread(w.User(1), domain.UnreadQuery{Waiting: true, Limit: 3}) {
		got = append(got, u.Conversation)
	}
	equal(t, "the newest three with something unread", got, ids[1:4])
}

// recipients reads how far a message has come with others.
func (w *World) recipients(c domain.ConversationID, seq domain.Seq) map[domain.UserID][2]domain.Seq {
	w.tb.Helper()
	h, err := w.Store.Heads(w.tb.Context(), domain.Principal{Admin: true}, domain.Needs{Conversation: c, Message: seq, Recipients: true})
	must(w.tb, err)
	list := make(map[domain.UserID][2]domain.Seq)
	for _, r := range h.Recipients {
		if _, twice := list[r.User]; twice {
			w.tb.Errorf("user %d is a recipient twice", r.User)
		}
		list[r.User] = [2]domain.Seq{r.LastDelivered, r.LastRead}
		if r.LastDelivered > 0 && r.DeliveredAt == 0 || r.LastRead > 0 && r.ReadAt == 0 {
			w.tb.Errorf("marks without their times: %+v", r)
		}
	}
	return list
}

func receiptsFollowMembership(t *testing.T, b Backend) {
	// Who got a message is who took part when it was sent, whatever became of them since.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1, 2)
	id := func(i int) domain.UserID { return w.Users[i].ID }
	w.Send(log, w.Draft(c, 0, "a", "to 1 and 2"), w.Draft(c, 0, "b", "to 1 and 2"), w.Draft(c, 0, "c", "to 1 and 2")) // 2 to 4
	must(t, w.Store.SavePositions(t.Context(), nil, []domain.Mark{{Conversation: c.ID, User: id(2), Seq: 2, Time: 50}}))
	w.read(log, 1, c.ID, 3)
	w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: c.ID, Participants: []domain.UserRef{w.Ref(2)}}) // 5
	// It was on its way when user 2 was removed.
	must(t, w.Store.SavePositions(t.Context(), nil, []domain.Mark{
		{Conversation: c.ID, User: id(1), Seq: 3, Time: 60}, {Conversation: c.ID, User: id(2), Seq: 3, Time: 60},
	}))
	c = w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(3)}).Decision.Conversation // 6
	w.Send(log, w.Draft(c, 0, "d", "to 1 and 3"))                                                                   // 7
	type marks = map[domain.UserID][2]domain.Seq
	equal(t, "the first message", w.recipients(c.ID, 2), marks{id(0): {0, 0}, id(1): {3, 3}, id(2): {3, 0}})
	equal(t, "the last message", w.recipients(c.ID, 7), marks{id(0): {0, 0}, id(1): {3, 3}, id(3): {0, 0}})

	w.read(log, 1, c.ID, 7)
	w.read(log, 1, c.ID, 0)
	equal(t, "marked as unread, and got all the same", w.recipients(c.ID, 7), marks{id(0): {0, 0}, id(1): {7, 1}, id(3): {0, 0}})

	c = w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(2)}).Decision.Conversation // 8
	equal(t, "user 2 is back", w.recipients(c.ID, 4), marks{id(0): {0, 0}, id(1): {7, 1}, id(2): {3, 0}})
	w.read(log, 2, c.ID, 8)
	equal(t, "and reads", w.recipients(c.ID, 4), marks{id(0): {0, 0}, id(1): {7, 1}, id(2): {8, 8}})
	equal(t, "what was not for it", w.recipients(c.ID, 7), marks{id(0): {0, 0}, id(1): {7, 1}, id(3): {0, 0}})
}

func readMarksAreTheReaders(t *testing.T, b Backend) {
	// A mark changes what one participant has read, and neither the log nor the version that messages are decided on.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	c, other := w.Group(log, 1, 2), w.Group(log, 1)
	w.Send(log, w.Draft(c, 0, "a", "x"), w.Draft(other, 0, "a", "x"))
	before := w.Head(c.ID)
	changed := w.read(log, 1, c.ID, 2)
	if len(changed.Decision.Events) != 0 || changed.Decision.Conversation != nil {
		t.Errorf("a mark led to %+v", changed.Decision)
	}
	before.Participants[1].LastRead, before.Participants[1].LastDelivered = 2, 2
	equal(t, "the conversation", w.Head(c.ID), before)
	if p := w.Head(other.ID).Participants[1]; p.LastRead != 0 {
		t.Errorf("the other conversation: %+v", p)
	}
	w.Send(log, w.Draft(c, 0, "b", "decided on the head before"))
	three := int64(4)
	outcomes := w.Try(log,
		w.Request(w.User(2), &domain.MarkAsRead{Conversation: c.ID}), w.Request(w.User(2), &domain.MarkAsRead{Conversation: c.ID, Seq: &three}),
		w.Request(w.User(1), &domain.AddParticipants{UUID: c.ID, Participants: w.New(0)}))
	if outcomes[0].Err != nil || domain.CodeOf(outcomes[1].Err) != domain.SequenceOutOfRange || outcomes[2].Err == nil {
		t.Errorf("a mixed batch came to %+v", outcomes)
	}
	if p := w.Head(c.ID).Participants[2]; p.LastRead != 3 {
		t.Errorf("up to the last: %+v", p)
	}
	// A change that was decided on what was there before the mark does not undo it.
	w.Try(log, w.Request(w.User(2), &domain.MarkAsRead{Conversation: c.ID, Seq: new(int64)}), w.Retitle(c.ID, "new"))
	if p := w.Head(c.ID).Participants[2]; p.LastRead != 1 || p.LastDelivered != 3 {
		t.Errorf("after a change: %+v", p)
	}
}

func removedMessagesMentionNobody(t *testing.T, b Backend) {
	// Whom a message named is part of what it said.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 2)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	rows := func() int { t.Helper(); return len(place.Dump(t)) }
	w.Send(log, w.Draft(c, 0, "a", "one"))
	w.Try(log, w.Rewrite(c.ID, 2, ""))
	empty := rows()
	w.Send(log, w.mention(c, 0, "b", domain.Mentions{Users: []domain.Username{w.Users[1].Username}}))
	with := rows()
	w.Try(log, w.Rewrite(c.ID, 4, "edited"))
	if got := w.unread(w.User(1), domain.UnreadQuery{Limit: 1}); len(got) != 1 || !got[0].Mentioned || got[0].Unread != 1 {
		t.Errorf("edited: %+v", got)
	}
	edited := rows()
	w.Try(log, w.Rewrite(c.ID, 4, ""))
	if got := w.unread(w.User(1), domain.UnreadQuery{Limit: 1}); len(got) != 1 || got[0].Mentioned || got[0].Unread != 0 || got[0].LastMessage != nil {
		t.Errorf("removed: %+v", got)
	}
	// An event has eight columns or more, the mention four.
	event := edited - with
	if got := rows(); with-empty != event+4 || got != edited+event-4 {
		t.Errorf("%d values, %d with a mention, %d when edited, %d when removed", empty, with, edited, got)
	}
}
