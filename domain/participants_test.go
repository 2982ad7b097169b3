package domain_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

func TestParticipantsMayBeNamedInShort(t *testing.T) {
	// Everybody writes a list of names first. It can mean one thing only.
	const uuid = "018bcfe5-6801-7000-8000-000000000001"
	id, err := domain.ParseConversationID(uuid)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	name, number := domain.UserRef{Username: "bob@chat.acme"}, domain.UserRef{UserID: 42}
	const list = `["bob@chat.acme", 42, {"userId":42,"permissions":{"canWrite":true}}, {"username":"bob@chat.acme"}]`
	members := domain.NewParticipants{
		{UserRef: name}, {UserRef: number}, {UserRef: number, Permissions: &domain.PermissionsPatch{CanWrite: &yes}}, {UserRef: name},
	}
	for topic, c := range map[string]struct {
		payload string
		want    domain.Command
	}{
		"commands/createConversation": {`{"participants":` + list + `}`, &domain.CreateConversation{Participants: members}},
		"commands/addParticipants":    {`{"uuid":"` + uuid + `","participants":` + list + `}`, &domain.AddParticipants{UUID: id, Participants: members}},
		"commands/removeParticipants": {`{"uuid":"` + uuid + `","participants":["bob@chat.acme",42,{"userId":42}]}`, &domain.RemoveParticipants{
			UUID: id, Participants: domain.UserRefs{name, number, number},
		}},
	} {
		req := publish(topic, c.payload)
		if req.Err != nil {
			t.Errorf("%s: %v", topic, req.Err)
			continue
		}
		if diff := cmp.Diff(c.want, req.Command); diff != "" {
			t.Errorf("%s (-want +got):\n%s", topic, diff)
		}
	}
}
