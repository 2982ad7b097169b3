package domain_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/parley-im/parley/domain"
)

// journal is what the test itself knows of a conversation: who takes part since when, and how many events there were.
type journal struct {
	since    map[domain.UserID]domain.Seq
	events   domain.Seq
	changes  int64
	distinct bool // is one still
	direct   bool
	removed  bool
}

func TestInvariantsHoldAfterAnySequenceOfCommands(t *testing.T) {
	// Whatever is accepted, in whatever order and by whomever, the state stays one that the other rules rely on. The
	// journal is kept from the events alone, as a client keeps it: so the events tell the whole truth about the state.
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore()
		journals := make(map[domain.ConversationID]*journal)
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			p := rapid.SampledFrom([]domain.Principal{
				user(alice), user(alice), user(bob), user(carol), user(dave), user(eve), user(mallory), service(), admin(), {},
			}).Draw(rt, "who")
			c := anyCommand(s).Draw(rt, "command")
			d, err := s.decide(t, p, c)
			if err != nil {
				continue
			}
			if c.Kind() == domain.Read && (len(d.Events) > 0 || d.Conversation != nil || d.Message != nil) {
				rt.Fatalf("%s reads and changes something: %+v", c.Name(), d)
			}
			apply(rt, s, journals, d)
		}
	})
}

// apply stores a decision, checks it against the journal and the state against what must always hold.
func apply(rt *rapid.T, s *store, journals map[domain.ConversationID]*journal, d domain.Decision) {
	if len(d.Events) == 0 {
		if d.Conversation != nil || d.Message != nil {
			rt.Fatalf("a change without an event: %+v", d)
		}
		return
	}
	if d.Conversation == nil { // an append, which the store numbers, or a message that is rewritten
		e := d.Events[0]
		old := s.conversations[e.Conversation]
		if len(d.Events) != 1 || old == nil {
			rt.Fatalf("appends %d events to %v", len(d.Events), e.Conversation)
		}
		next := *old
		next.LastSeq++
		switch e.Type {
		case domain.EventSendMessage:
			e.At(old.ID, next.LastSeq)
			s.messages[e.Message.ID] = e
		case domain.EventEditMessage, domain.EventRemoveMessage:
			rewrite(rt, s, e, d.Message, next.LastSeq)
		default:
			rt.Fatalf("%s leaves the state as it is", e.Type)
		}
		journals[old.ID].events++
		s.conversations[old.ID] = &next
		check(rt, &next, journals[old.ID])
		return
	}
	conv := d.Conversation
	old := s.conversations[conv.ID]
	before, beforeVersion, hadOwner := domain.Seq(0), int64(0), owners(conv) > 0
	if old != nil {
		before, beforeVersion, hadOwner = old.LastSeq, old.Version, owners(old) > 0
	} else {
		s.made++
		journals[conv.ID] = &journal{
			since: make(map[domain.UserID]domain.Seq), distinct: conv.Distinct, direct: conv.Direct,
		}
	}
	if conv.LastSeq != before+domain.Seq(len(d.Events)) || conv.Version != beforeVersion+1 {
		rt.Fatalf("%d events led from number %d to %d, version %d to %d", len(d.Events), before, conv.LastSeq, beforeVersion, conv.Version)
	}
	if old != nil && old.Removed {
		rt.Fatalf("%s after the removal", d.Events[0].Action)
	}
	if left := d.Events[0].Action == "leaveConversation"; hadOwner && !left && owners(conv) == 0 && len(conv.Participants) > 0 {
		rt.Fatalf("nobody owns the conversation any more: %+v", conv)
	}
	j := journals[conv.ID]
	j.changes++
	for i, e := range d.Events {
		if e.Seq != before+domain.Seq(i+1) || e.Conversation != conv.ID {
			rt.Fatalf("event %d of %v carries number %d, after %d", i, e.Conversation, e.Seq, before)
		}
		j.events++
		note(rt, s, j, e)
	}
	s.conversations[conv.ID] = conv
	check(rt, conv, j)
}

// rewrite stores what a message reads like from now on, and checks that the one before was there to be rewritten.
func rewrite(rt *rapid.T, s *store, e, now *domain.Event, seq domain.Seq) {
	was := s.messages[e.Message.ID]
	switch {
	case e.Seq != seq || was == nil || now == nil:
		rt.Fatalf("event %d where %d is due, of %v that becomes %v", e.Seq, seq, was, now)
	case was.Message.Removed:
		rt.Fatalf("%s of a removed message", e.Type)
	case now.Seq != was.Seq || now.Type != was.Type || now.Sender != was.Sender || now.Message.ID != was.Message.ID:
		rt.Fatalf("%+v became %+v", was, now)
	case now.Message.Removed != (e.Type == domain.EventRemoveMessage):
		rt.Fatalf("%s leads to %+v", e.Type, now.Message)
	}
	if shown, ok := was.Amended(e); !ok || !cmp.Equal(shown, now) {
		rt.Fatalf("memory and store differ: %s", cmp.Diff(shown, now))
	}
	s.messages[e.Message.ID] = now
}

// note keeps in the journal and in the store's intervals what an event tells.
func note(rt *rapid.T, s *store, j *journal, e *domain.Event) {
	switch e.Action {
	case "createConversation":
		for _, p := range e.ConversationData.Participants {
			j.since[p.UserID] = e.Seq
			s.joined(p.UserID, e.Conversation, e.Seq)
		}
	case "editConversation":
	case "removeConversation":
		j.removed = true
	case "editParticipants":
		j.distinct = false
		for _, p := range e.Participants {
			if is, in := e.ConversationData.Participant(p.UserID); !in || is != p || j.since[p.UserID] == 0 {
				rt.Fatalf("%s of %+v, who is %+v", e.Action, p, is)
			}
		}
	case "addParticipants", "removeParticipants", "joinConversation", "leaveConversation":
		if len(e.Participants) == 0 || j.direct {
			rt.Fatalf("%s of %d participants, direct %t", e.Action, len(e.Participants), j.direct)
		}
		j.distinct = false
		for _, p := range e.Participants {
			_, in := j.since[p.UserID]
			if in != (e.Action == "removeParticipants" || e.Action == "leaveConversation") {
				rt.Fatalf("%s of %s, who took part: %t", e.Action, p.Username, in)
			}
			if in {
				delete(j.since, p.UserID)
				s.left(p.UserID, e.Conversation, e.Seq)
			} else {
				j.since[p.UserID] = e.Seq
				s.joined(p.UserID, e.Conversation, e.Seq)
			}
		}
	default:
		rt.Fatalf("a change by %s is not in the journal's book", e.Action)
	}
}

// check compares the state with the journal.
func check(rt *rapid.T, c *domain.Conversation, j *journal) {
	if c.LastSeq != j.events || c.Version != j.changes {
		rt.Fatalf("last number %d after %d events, version %d after %d changes", c.LastSeq, j.events, c.Version, j.changes)
	}
	if len(c.Participants) != len(j.since) {
		rt.Fatalf("participants %v, want those of %v", members(c), j.since)
	}
	seen := make(map[domain.UserID]bool)
	for _, p := range c.Participants {
		u := person(p.UserID)
		switch {
		case seen[p.UserID]:
			rt.Fatalf("%s takes part twice", p.Username)
		case j.since[p.UserID] != p.JoinedSeq:
			rt.Fatalf("%s joined by event %d, the state says %d", p.Username, j.since[p.UserID], p.JoinedSeq)
		case u.Root != c.Root || u.Username != p.Username:
			rt.Fatalf("%+v takes part in a conversation of tree %d", p, c.Root)
		}
		seen[p.UserID] = true
	}
	switch {
	case c.Removed != j.removed, c.Removed && c.UniqueKey != "":
		rt.Fatalf("removed %t with key %q, want %t", c.Removed, c.UniqueKey, j.removed)
	case c.Removed:
	case c.Distinct && !j.distinct, !c.Direct && (c.UniqueKey != "") != j.distinct:
		rt.Fatalf("distinct %t with key %q, want %t", c.Distinct, c.UniqueKey, j.distinct)
	case c.Direct != j.direct, c.Direct && (len(c.Participants) != 2 || c.UniqueKey == ""):
		rt.Fatalf("direct %t with %d participants and key %q", c.Direct, len(c.Participants), c.UniqueKey)
	}
}

func owners(c *domain.Conversation) int {
	n := 0
	for _, p := range c.Participants {
		if p.Permissions.IsOwner {
			n++
		}
	}
	return n
}

// anyCommand gives commands about the conversations that exist, and a few that do not.
func anyCommand(s *store) *rapid.Generator[domain.Command] {
	ids := []domain.ConversationID{conversationID(250)}
	for id := range s.conversations {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b domain.ConversationID) int { return slices.Compare(a[:], b[:]) })
	anyID := rapid.SampledFrom(ids)
	anyRef := rapid.Custom(func(t *rapid.T) domain.UserRef {
		u := rapid.SampledFrom([]domain.UserID{alice, alice, bob, bob, carol, carol, dave, dave, eve, mallory, ghost, 404}).Draw(t, "user")
		if u < 100 && rapid.Bool().Draw(t, "by name") {
			return domain.UserRef{Username: person(u).Username}
		}
		return domain.UserRef{UserID: u}
	})
	anyPatch := rapid.Custom(func(t *rapid.T) *domain.PermissionsPatch {
		flag := rapid.Ptr(rapid.Bool(), true)
		return rapid.SampledFrom([]*domain.PermissionsPatch{nil, nil, {
			IsOwner: flag.Draw(t, "isOwner"), CanManageParticipants: flag.Draw(t, "canManage"), CanWrite: flag.Draw(t, "canWrite"),
			CanRead: flag.Draw(t, "canRead"), CanEditAll: flag.Draw(t, "canEditAll"),
		}}).Draw(t, "permissions")
	})
	anyParticipants := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) domain.NewParticipant {
		return domain.NewParticipant{UserRef: anyRef.Draw(t, "ref"), Permissions: anyPatch.Draw(t, "own")}
	}), 0, 3)
	n := rapid.Ptr(rapid.Int64Range(-1, 120), true)
	anySeq := rapid.Custom(func(t *rapid.T) domain.Seq { return domain.Seq(rapid.Int64Range(1, 8).Draw(t, "seq")) })
	return rapid.Custom(func(t *rapid.T) domain.Command {
		switch rapid.IntRange(0, 19).Draw(t, "kind") {
		case 0, 1, 2:
			return &domain.CreateConversation{
				Direct: rapid.Bool().Draw(t, "direct"), Distinct: rapid.Bool().Draw(t, "distinct"),
				Uber: rapid.IntRange(0, 4).Draw(t, "uber") == 0, PublicJoin: rapid.IntRange(0, 4).Draw(t, "public") == 0,
				Policy:       rapid.SampledFrom([]domain.Policy{"", domain.Managed, domain.Open}).Draw(t, "policy"),
				Participants: anyParticipants.Draw(t, "participants"), Permissions: anyPatch.Draw(t, "defaults"),
			}
		case 3, 4:
			return &domain.AddParticipants{UUID: anyID.Draw(t, "id"), Participants: anyParticipants.Draw(t, "participants")}
		case 5, 6:
			return &domain.RemoveParticipants{
				UUID: anyID.Draw(t, "id"), Participants: rapid.SliceOfN(anyRef, 0, 3).Draw(t, "participants"),
			}
		case 7:
			return &domain.SendMessage{
				Conversation: anyID.Draw(t, "id"), MessageRequest: domain.MessageRequest{Content: domain.Content{Text: "hi"}},
			}
		case 9, 10:
			id, text := anyID.Draw(t, "id"), "new"
			return &domain.EditMessage{
				Conversation: id, Message: domain.NewMessageID(id, anySeq.Draw(t, "seq")), MessageEdit: domain.MessageEdit{Text: &text},
			}
		case 11:
			id := anyID.Draw(t, "id")
			return &domain.RemoveMessage{Conversation: id, Message: domain.NewMessageID(id, anySeq.Draw(t, "seq"))}
		case 12, 13:
			return &domain.JoinConversation{UUID: anyID.Draw(t, "id")}
		case 14:
			return &domain.LeaveConversation{UUID: anyID.Draw(t, "id")}
		case 15:
			return &domain.EditConversation{UUID: anyID.Draw(t, "id"), ConversationEdit: domain.ConversationEdit{
				PublicJoin:  rapid.Ptr(rapid.Bool(), true).Draw(t, "public"),
				Policy:      rapid.SampledFrom([]domain.Policy{"", domain.Managed, domain.Open}).Draw(t, "policy"),
				Permissions: anyPatch.Draw(t, "defaults"),
			}}
		case 16, 17:
			return &domain.EditParticipants{UUID: anyID.Draw(t, "id"), Participants: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) domain.EditedParticipant {
				return domain.EditedParticipant{UserRef: anyRef.Draw(t, "ref"), Permissions: anyPatch.Draw(t, "permissions")}
			}), 0, 3).Draw(t, "participants")}
		case 18:
			if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
				return &domain.MuteConversation{UUID: anyID.Draw(t, "id"), Muted: rapid.Ptr(rapid.Bool(), true).Draw(t, "muted")}
			}
			return &domain.RemoveConversation{UUID: anyID.Draw(t, "id")}
		case 8:
			return &domain.GetConversations{UUIDs: rapid.SliceOfN(anyID, 0, 3).Draw(t, "ids")}
		}
		return &domain.RetransmitEvents{
			Conversation: anyID.Draw(t, "id"), From: n.Draw(t, "from"), To: n.Draw(t, "to"), Count: n.Draw(t, "count"),
		}
	})
}
