package storetest

import (
	"bytes"
	"crypto/rand"
	"slices"
	"testing"

	"github.com/parley-im/parley/domain"
)

func readingIntervals(t *testing.T, b Backend) {
	// Who was not allowed to read must not find what was said then by coming back, or by leaving.
	w := NewWorld(t, open(t, b), 4)
	log := w.Store.Committers()[0]
	yes, no := true, false
	may := func(read *bool) *domain.PermissionsPatch { return &domain.PermissionsPatch{CanRead: read} }
	blind := domain.NewParticipant{UserRef: w.Ref(2), Permissions: may(&no)}
	c := w.Change(log, w.User(0), &domain.CreateConversation{Participants: append(w.New(1), blind)}).Decision.Conversation
	permit := func(user int, read *bool) {
		w.Change(log, w.User(0), &domain.EditParticipants{UUID: c.ID, Participants: []domain.EditedParticipant{
			{UserRef: w.Ref(user), Permissions: may(read)},
		}})
	}
	permit(1, &no)                                                                                                                                   // 2
	permit(1, &no)                                                                                                                                   // 3
	permit(1, &yes)                                                                                                                                  // 4
	permit(2, &yes)                                                                                                                                  // 5
	permit(2, &no)                                                                                                                                   // 6
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: []domain.NewParticipant{{UserRef: w.Ref(3), Permissions: may(&no)}}}) // 7
	for _, user := range []int{2, 3} {
		w.Change(log, w.User(user), &domain.LeaveConversation{UUID: c.ID}) // 8, 9
	}
	for user, want := range [][]domain.Interval{
		{{From: 1}}, {{From: 1, To: 2}, {From: 4}}, {{From: 1, To: -1}, {From: 5, To: 6}}, {{From: 7, To: -1}},
	} {
		h, err := w.Store.Heads(t.Context(), w.User(user), domain.Needs{Conversation: c.ID, Past: true, Self: true})
		must(t, err)
		equal(t, w.Users[user].DisplayName, h.Past[c.ID], want)
		present := user < 2
		if slices.Contains(h.Self.ConversationsList, c.ID) != present || slices.Contains(h.Self.LeaveConversationList, c.ID) == present {
			t.Errorf("user %d: lists %v and %v", user, h.Self.ConversationsList, h.Self.LeaveConversationList)
		}
	}
	w.Log(c.ID)
}

func mutesAreKept(t *testing.T, b Backend) {
	// Muting belongs to the user: no change of the conversation touches it, and it ends with the participation.
	w := NewWorld(t, open(t, b), 2)
	log := w.Store.Committers()[0]
	c, other := w.Group(log, 1), w.Group(log, 1)
	yes, no := true, false
	mute := func(muted *bool) {
		t.Helper()
		before := w.Head(c.ID)
		changed := w.Change(log, w.User(1), &domain.MuteConversation{UUID: c.ID, Muted: muted})
		equal(t, "the result", changed.Decision.Result.Conversation, before)
		equal(t, "the head", w.Head(c.ID), before)
	}
	muted := func(what string, want ...domain.ConversationID) {
		t.Helper()
		for user, list := range [][]domain.ConversationID{nil, want} {
			h, err := w.Store.Heads(t.Context(), w.User(user), domain.Needs{Self: true})
			must(t, err)
			equal(t, what, h.Self.MutedConversations, list)
		}
	}
	muted("at first")
	mute(&yes)
	mute(&yes)
	muted("muted", c.ID)
	w.Change(log, w.User(0), &domain.EditParticipants{UUID: c.ID, Participants: []domain.EditedParticipant{
		{UserRef: w.Ref(1), Permissions: &domain.PermissionsPatch{CanWrite: &no}},
	}})
	must(t, w.Try(log, w.Retitle(c.ID, "another title"))[0].Err)
	muted("after changes", c.ID)
	mute(&no)
	muted("no more")
	mute(&yes)
	w.Change(log, w.User(1), &domain.LeaveConversation{UUID: c.ID})
	w.Change(log, w.User(0), &domain.AddParticipants{UUID: c.ID, Participants: w.New(1)})
	muted("added again")
	w.Change(log, w.User(1), &domain.MuteConversation{UUID: other.ID, Muted: &yes})
	w.Change(log, w.User(0), &domain.RemoveConversation{UUID: other.ID})
	muted("removed for all")
}

func removedConversations(t *testing.T, b Backend) {
	// A conversation that is removed is in nobody's list, and frees its place: the next one of the pair is another.
	w := NewWorld(t, open(t, b), 3)
	log := w.Store.Committers()[0]
	direct := &domain.CreateConversation{Direct: true, Participants: w.New(1)}
	c := w.Change(log, w.User(0), direct).Decision.Conversation
	former := w.Group(log, 2)
	w.Change(log, w.User(2), &domain.LeaveConversation{UUID: former.ID})
	for _, id := range []domain.ConversationID{c.ID, former.ID} {
		r := w.Request(w.User(0), &domain.RemoveConversation{UUID: id})
		first, again := w.Try(log, r)[0], w.Try(log, r)[0]
		for _, changed := range []domain.Changed{first, again} {
			must(t, changed.Err)
			if e := changed.Decision.Events; len(e) != 1 || e[0].Type != domain.EventRemoveConversation || !changed.Decision.Conversation.Removed {
				t.Errorf("removed: %+v", changed.Decision)
			}
			equal(t, "the result", changed.Decision.Result, domain.Result{})
		}
		refused(t, "another time", w.Try(log, w.Request(w.User(0), &domain.RemoveConversation{UUID: id}))[0].Err, domain.ConversationRemoved)
	}
	for user := range 3 {
		h, err := w.Store.Heads(t.Context(), w.User(user), domain.Needs{Self: true})
		must(t, err)
		if n := len(h.Self.ConversationsList) + len(h.Self.LeaveConversationList); n != 0 {
			t.Errorf("user %d has %d conversations in its lists", user, n)
		}
	}
	next := w.Change(log, w.User(1), &domain.CreateConversation{Direct: true, Participants: w.New(0)})
	if *next.Decision.Result.Existing || next.Decision.Conversation.ID == c.ID {
		t.Errorf("the next one of the pair: %+v", next.Decision.Result)
	}
	stale, err := w.Append(t.Context(), log, w.Draft(c, 0, "late", "too late"))
	must(t, err)
	equal(t, "a draft on the head before", stale, []domain.Placement{{Status: domain.Stale}})
	if list := w.Log(c.ID); len(list) != 2 || list[1].Action != "removeConversation" {
		t.Errorf("the log: %+v", list)
	}
}

func removedMessagesByCommand(t *testing.T, b Backend) {
	// The rules say what a message becomes, and the store carries it out in every table.
	place := b.New(t)
	w := NewWorld(t, place.Open(t), 2)
	log := w.Store.Committers()[0]
	c := w.Group(log, 1)
	m := &domain.SendMessage{Conversation: c.ID}
	m.ClientID, m.Text, m.Options = rand.Text(), "secret-text", &domain.Options{Push: domain.RawObject(`{"a":"secret-push"}`)}
	m.Attributes, m.Payload = domain.RawObject(`{"a":"secret-attribute"}`), []domain.RawObject{domain.RawObject(`{"a":"secret-payload"}`)}
	m.Parts, m.Notification = []domain.Part{{MimeType: "text/plain", Body: "secret-part"}}, &domain.Notification{Text: "secret-notification"}
	m.Mentions = &domain.Mentions{Users: []domain.Username{w.Users[1].Username}}
	d, err := domain.Decide(&domain.Heads{Conversation: w.Head(c.ID), Now: w.Now(), Limits: domain.DefaultLimits()}, w.User(0), m)
	must(t, err)
	d.Events[0].ClientID = m.ClientID
	w.Send(log, domain.Draft{Event: d.Events[0], Version: c.Version})
	id := domain.NewMessageID(c.ID, 2)
	text := "secret-edit"
	edit := w.Request(w.User(0), &domain.EditMessage{Conversation: c.ID, Message: id, MessageEdit: domain.MessageEdit{Text: &text}})
	first, again := w.Try(log, edit)[0], w.Try(log, edit)[0]
	for _, changed := range []domain.Changed{first, again} {
		must(t, changed.Err)
		if changed.Decision.Conversation != nil || changed.Before == nil || changed.Decision.Result.Message == nil ||
			changed.Decision.Result.Message.Text != text || changed.Decision.Events[0].Seq != 3 {
			t.Errorf("edited: %+v", changed)
		}
	}
	if head := w.Head(c.ID); head.LastSeq != 3 || head.Version != c.Version {
		t.Errorf("the head after editing twice with one key: %+v", head)
	}
	remove := w.Request(w.User(0), &domain.RemoveMessage{Conversation: c.ID, Message: id})
	for range 2 {
		must(t, w.Try(log, remove)[0].Err)
	}
	for _, cell := range place.Dump(t) {
		if bytes.Contains(cell, []byte("secret-")) {
			t.Errorf("left behind: %s", cell)
		}
	}
	list := w.Log(c.ID)
	if len(list) != 4 || !list[1].Message.Removed || list[1].Message.ClientID != m.ClientID || !list[2].Message.Removed || list[3].Message.Seq != 2 {
		t.Errorf("the log: %+v", list)
	}
	refused(t, "edit", w.Try(log, w.Request(w.User(0), &domain.EditMessage{
		Conversation: c.ID, Message: id, MessageEdit: domain.MessageEdit{Text: &text},
	}))[0].Err, domain.MessageRemoved)
}

func conversationsAreListed(t *testing.T, b Backend) {
	// A page must neither skip nor repeat a conversation, nor show one of another tree.
	s := open(t, b)
	w, foreign := NewWorld(t, s, 3), NewWorld(t, s, 1)
	log := s.Committers()[0]
	root := w.Users[0].Root
	create := func(in *World, user int, public bool) domain.ConversationID {
		return in.Change(log, in.User(user), &domain.CreateConversation{PublicJoin: public, Participants: in.New(user)}).Decision.Conversation.ID
	}
	var public, all, mine []domain.ConversationID
	for i := range 7 {
		id := create(w, 0, i%2 == 0)
		all, mine = append(all, id), append(mine, id)
		if i%2 == 0 {
			public = append(public, id)
		}
	}
	child := create(w, 1, true)
	must(t, w.Try(log, w.Edit(child, func(c *domain.Conversation) { c.Account = root + 1000 }))[0].Err)
	all = append(all, child)
	gone := create(w, 0, true)
	w.Change(log, w.User(0), &domain.RemoveConversation{UUID: gone})
	create(foreign, 0, true)
	for name, c := range map[string]struct {
		q    domain.ConversationQuery
		want []domain.ConversationID
	}{
		"public of the main account": {domain.ConversationQuery{Root: root, Account: root, Public: true}, public},
		"public of the child":        {domain.ConversationQuery{Root: root, Account: root + 1000, Public: true}, append(slices.Clone(public), child)},
		"public of another child":    {domain.ConversationQuery{Root: root, Account: root + 1001, Public: true}, public},
		"public of the tree":         {domain.ConversationQuery{Root: root, Public: true}, append(slices.Clone(public), child)},
		"of the tree":                {domain.ConversationQuery{Root: root}, all},
		"of a user":                  {domain.ConversationQuery{Root: root, Member: w.Users[0].ID}, mine},
		"of nobody":                  {domain.ConversationQuery{Root: root, Member: w.Users[2].ID}, nil},
	} {
		for _, limit := range []int{1, 3, 100} {
			var got []domain.ConversationID
			for more := true; more; {
				c.q.Limit, c.q.Whole = limit, limit == 3
				h, err := s.Heads(t.Context(), w.User(0), domain.Needs{List: &c.q})
				must(t, err)
				if whole := len(h.Conversations); c.q.Whole && whole != len(h.Listed) || !c.q.Whole && whole > 0 {
					t.Errorf("%s: %d whole conversations with %d ids", name, whole, len(h.Listed))
				}
				if more = len(h.Listed) == limit; len(h.Listed) > 0 {
					c.q.After = h.Listed[len(h.Listed)-1]
				}
				got = append(got, h.Listed...)
			}
			c.q.After = domain.ConversationID{}
			equal(t, name, got, c.want)
		}
	}
	for _, public := range []bool{false, true} {
		h, err := s.Heads(t.Context(), domain.Principal{Admin: true}, domain.Needs{List: &domain.ConversationQuery{Public: public, Limit: 10000}})
		must(t, err)
		if len(h.Listed) < len(all) && !public || !slices.Contains(h.Listed, child) || slices.Contains(h.Listed, gone) {
			t.Errorf("of all trees, public %v: %v", public, h.Listed)
		}
	}
}
