package chaos_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"unique"

	"github.com/parley-im/parley/e2e/chaos"
)

// wire is an event as it is sent.
type wire struct {
	Type, Action, Conversation string
	Seq                        int64
	Initiator                  struct{ UserID int64 }
	Message                    *struct {
		ID, UUID, Text string
		Seq            int64
		EditCount      int
		Removed        bool
	}
	ConversationData *struct {
		Uber         bool
		Participants []participant
	}
	Participants []participant
}

type participant struct {
	UserID      int64
	Permissions struct{ CanRead bool }
}

func (w *wire) event() chaos.Event {
	// A long storm has millions of deliveries, of few conversations.
	ev := chaos.Event{
		Conversation: unique.Make(w.Conversation).Value(), Seq: w.Seq, Type: unique.Make(w.Type).Value(), Action: unique.Make(w.Action).Value(),
	}
	if m := w.Message; m != nil {
		ev.Message, ev.Of = m.ID, m.Seq
		ev.Shows = chaos.Content{Text: m.Text, Edits: m.EditCount, Removed: m.Removed}
	}
	concerned := w.Participants
	if w.Type == "createConversation" && w.ConversationData != nil {
		ev.Uber = w.ConversationData.Uber
		concerned = w.ConversationData.Participants
	}
	for _, p := range concerned {
		ev.Users = append(ev.Users, p.UserID)
		if !p.Permissions.CanRead {
			ev.Blind = append(ev.Blind, p.UserID)
		}
	}
	return ev
}

func eventOf(payload []byte) (chaos.Event, error) {
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		return chaos.Event{}, fmt.Errorf("%w in %s", err, payload)
	}
	return w.event(), nil
}

// everything gives all conversations that there are: when a gateway is killed, the answer to a creation may be lost like any
// other.
func (s *storm) everything() []string {
	var list []string
	for cursor := ""; ; {
		var page struct {
			Conversations []struct{ UUID string }
			NextCursor    string
		}
		s.must(s.service, "GET", "/v1/conversations?limit=100&cursor="+cursor, nil, &page)
		for _, c := range page.Conversations {
			list = append(list, c.UUID)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	for _, c := range s.conversations {
		if !slices.Contains(list, c) {
			s.t.Errorf("conversation %s was created and is not there", c)
		}
	}
	return list
}

// read gives the log of a conversation.
func (s *storm) read(conversation string) []chaos.Event {
	var head struct{ Conversation struct{ LastSeq int64 } }
	s.must(s.service, "GET", "/v1/conversations/"+conversation, nil, &head)
	var log []chaos.Event
	for int64(len(log)) < head.Conversation.LastSeq {
		var page struct{ Events []wire }
		s.must(s.service, "GET", fmt.Sprintf("/v1/conversations/%s/events?from=%d&count=100", conversation, len(log)+1), nil, &page)
		if len(page.Events) == 0 {
			s.t.Errorf("%s ends at %d, not %d", conversation, len(log), head.Conversation.LastSeq)
			break
		}
		for i := range page.Events {
			log = append(log, page.Events[i].event())
		}
	}
	return log
}
