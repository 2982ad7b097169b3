package domain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/parley-im/parley/domain"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// vectors gives, per file, values of the wire with a name each.
func vectors() map[string]map[string]any {
	full := room()
	full.CustomData, full.PublicJoin, full.Uber, full.Distinct = domain.RawObject(`{"topic":"cats"}`), true, true, true
	full.Participants[1].LastRead, full.Participants[1].LastDelivered, full.Participants[1].JoinedSeq = 5, 6, 3
	bare := &domain.Conversation{
		ID: conversationID(2), Direct: true, Policy: domain.Open, CreatedTime: now, LastUpdate: now, LastSeq: 1,
		Permissions: domain.DefaultPermissions(), Participants: []domain.Participant{}, Removed: true,
	}

	message := &domain.Message{
		ID: domain.NewMessageID(full.ID, 8), Conversation: full.ID, Seq: 8, ClientID: "m-1",
		Sender: &domain.Initiator{UserID: bob, Username: person(bob).Username}, Time: now,
		Content: domain.Content{
			Text: "<b>hé</b>\n", Payload: []domain.RawObject{domain.RawObject(`{"card":7}`)},
			Parts: []domain.Part{
				{MimeType: "text/plain", Body: "x"},
				{MimeType: "image/jpeg", Body: "/9g=", Encoding: "base64"},
				{MimeType: "video/mp4", URL: "https://example.org/v", Size: 31337},
			},
			MessageType: -2, Attributes: domain.RawObject(`{"a":{"b":null}}`),
			Mentions:     &domain.Mentions{All: new(true), Users: []domain.Username{"alice@chat.acme"}},
			Notification: &domain.Notification{Text: "n", Sound: "ping.aiff"},
		},
		Receipt: true, Priority: "high", Push: domain.RawObject(`{"for":"the push service"}`), EditedTime: now + 1, EditCount: 2,
	}
	text := &domain.Message{
		ID: domain.NewMessageID(full.ID, 9), Conversation: full.ID, Seq: 9, Sender: &domain.Initiator{Service: "billing"}, Time: now,
		Content: domain.Content{Text: "hi"},
	}
	gone := *text
	gone.Content, gone.Removed = domain.Content{}, true
	target := &domain.Message{ID: text.ID, Conversation: text.Conversation, Seq: text.Seq}

	event := func(typ domain.EventType, action string, seq domain.Seq) *domain.Event {
		return &domain.Event{
			Type: typ, Conversation: full.ID, Seq: seq, Time: now, Initiator: user(alice).Initiator(), Action: action,
		}
	}
	created := event(domain.EventCreateConversation, "createConversation", 1)
	created.ConversationData, created.RequestID = full, "r-1"
	added := event(domain.EventEditConversation, "addParticipants", 2)
	added.ConversationData, added.Participants = full, full.Participants[1:]
	sentFull := event(domain.EventSendMessage, "sendMessage", 8)
	sentFull.Message = message
	sentText := event(domain.EventSendMessage, "sendMessage", 9)
	sentText.Message, sentText.Initiator = text, service().Initiator()
	edited := event(domain.EventEditMessage, "editMessage", 10)
	edited.Message, edited.Reason = message, &domain.Reason{Code: 7, Detail: "language"}
	removedMessage := event(domain.EventRemoveMessage, "removeMessage", 11)
	removedMessage.Message = target

	me := person(alice)
	me.DisplayName, me.CustomData, me.Created = "Alice", domain.RawObject(`{"color":"red"}`), now
	own := me
	own.Own = &domain.Own{
		PrivateCustomData: domain.RawObject(`{"draft":1}`), ConversationsList: []domain.ConversationID{full.ID},
		LeaveConversationList: []domain.ConversationID{}, Notifications: []string{"sendMessage"},
	}
	conflict := domain.Errorf(domain.DistinctConflict, "the conversation of these participants has other customData")
	conflict.Conversation = bare
	return map[string]map[string]any{
		"conversation": {"full": full, "bare": bare},
		"message":      {"full": message, "text by a service": text, "removed": &gone},
		"event": {
			"createConversation": created, "addParticipants": added,
			"removeConversation":       event(domain.EventRemoveConversation, "removeConversation", 12),
			"sendMessage":              sentFull,
			"sendMessage by a service": sentText, "editMessage": edited, "removeMessage": removedMessage,
		},
		"user":  {"public": &me, "own": &own, "deleted": ptr(person(ghost))},
		"error": {"refusal": domain.Errorf(domain.AccessDenied, "you may not write in this conversation"), "distinct-conflict": conflict},
		"reply": {
			"user":              &domain.Reply{RequestID: "r-1", Command: "getMe", Result: &domain.Result{User: &own}},
			"users":             &domain.Reply{RequestID: "r-1", Command: "getUsers", Result: &domain.Result{Users: []domain.User{me, person(ghost)}}},
			"conversation":      &domain.Reply{Command: "createConversation", Result: &domain.Result{Conversation: bare, Existing: ptr(false)}},
			"conversations":     &domain.Reply{Command: "getConversations", Result: &domain.Result{Conversations: []*domain.Conversation{bare}}},
			"message":           &domain.Reply{Command: "sendMessage", Result: &domain.Result{Message: text}},
			"events":            &domain.Reply{Command: "retransmitEvents", Result: &domain.Result{Events: []*domain.Event{sentText}, From: 9, To: 9}},
			"no events to show": &domain.Reply{Command: "retransmitEvents", Result: &domain.Result{Events: []*domain.Event{}, From: 1, To: 2}},
			"nothing to tell":   &domain.Reply{Command: "removeConversation", Result: &domain.Result{}},
			"refusal":           &domain.Reply{RequestID: "r-1", Command: "sendMessage", Error: domain.Errorf(domain.AccessDenied, "no")},
		},
		"notice": {
			"conversationAdded":   &domain.Notice{Type: domain.NoticeConversationAdded, Time: now, ConversationData: bare},
			"conversationRemoved": &domain.Notice{Type: domain.NoticeConversationRemoved, Time: now, Conversation: &bare.ID},
			"conflict":            &domain.Notice{Type: domain.NoticeConflict, Time: now, Tag: "mobile"},
			"error": &domain.Notice{
				Type: domain.NoticeError, Time: now, Device: "phone", Topic: room1 + "/messages", RequestID: "r-1", Command: "sendMessage",
				Error: domain.Errorf(domain.MessageTooLarge, "text is longer than 5000 characters"),
			},
		},
	}
}

func TestWireFormsAreTheVectors(t *testing.T) {
	// Clients in other languages test against these files. A difference is a change of the protocol: decide it, write it into
	// the protocol page, then run the test with -update.
	for kind, values := range vectors() {
		path := filepath.Join("testdata", "vectors", kind+".json")
		if *update {
			writeVectors(t, path, values)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var golden map[string]json.RawMessage
		if err := json.Unmarshal(file, &golden); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(values)), slices.Sorted(maps.Keys(golden))); diff != "" {
			t.Errorf("%s (-code +file):\n%s", path, diff)
		}
		for name, v := range values {
			t.Run(kind+"/"+name, func(t *testing.T) {
				got, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(indented(t, golden[name]), indented(t, got)); diff != "" {
					t.Errorf("(-%s +code):\n%s", path, diff)
				}
				back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
				if err := json.Unmarshal(golden[name], back); err != nil {
					t.Fatal(err)
				}
				again, err := json.Marshal(back)
				if err != nil || !bytes.Equal(got, again) {
					t.Errorf("read and written again it is %s (%v)", again, err)
				}
			})
		}
	}
}

func writeVectors(t *testing.T, path string, values map[string]any) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(values); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// indented makes JSON readable and its escapes the same, so that a difference is one of meaning or order.
func indented(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	if len(b) == 0 {
		return ""
	}
	if err := json.Indent(&out, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(out.String())
}

func TestFieldNamesAreThoseOfTheContract(t *testing.T) {
	// The vectors say what the code does, this says what was promised: every name, and no others.
	all := vectors()
	names := func(v any) []string { return slices.Sorted(maps.Keys(jsonOf(t, v))) }
	initiatorOf := func(name string) any { return jsonOf(t, all["event"][name])["initiator"] }
	for _, tc := range []struct {
		what string
		got  []string
		want string
	}{
		{"conversation", names(all["conversation"]["full"]), "uuid title direct distinct uber publicJoin policy createdTime lastUpdate lastSeq customData permissions participants removed"},
		{"participant", names(all["conversation"]["full"].(*domain.Conversation).Participants[0]), "userId username permissions lastRead lastDelivered joinedSeq"},
		{"permissions", names(domain.Permissions{}), "canRead canWrite canEdit canRemove canManageParticipants canEditAll canRemoveAll isOwner"},
		{"message", names(all["message"]["full"]), "uuid conversation seq id sender time text payload parts messageType attributes mentions notification receipt priority push editedTime editCount"},
		{"text message", names(all["message"]["text by a service"]), "uuid conversation seq sender time text"},
		{"removed message", names(all["message"]["removed"]), "uuid conversation seq sender time removed"},
		{"part", names(domain.Part{MimeType: "a", Body: "b", Encoding: "c", URL: "d", Size: 1}), "mimeType body encoding url size"},
		{"mentions", names(domain.Mentions{All: new(true), Users: []domain.Username{"x"}}), "all users"},
		{"notification", names(domain.Notification{Text: "x", Sound: "y"}), "text sound"},
		{"options", names(domain.Options{Transient: true, Receipt: true, Will: true, Priority: "x", Push: domain.RawObject("{}")}), "transient receipt will priority push"},
		{"createConversation", names(all["event"]["createConversation"]), "type conversation seq time initiator action requestId conversationData"},
		{"editConversation", names(all["event"]["addParticipants"]), "type conversation seq time initiator action conversationData participants"},
		{"removeConversation", names(all["event"]["removeConversation"]), "type conversation seq time initiator action"},
		{"sendMessage", names(all["event"]["sendMessage"]), "type conversation seq time initiator action message"},
		{"editMessage", names(all["event"]["editMessage"]), "type conversation seq time initiator action message reason"},
		{"removeMessage", names(all["event"]["removeMessage"]), "type conversation seq time initiator action message"},
		{"message of removeMessage", names(jsonOf(t, all["event"]["removeMessage"])["message"]), "uuid conversation seq"},
		{"reason", names(jsonOf(t, all["event"]["editMessage"])["reason"]), "code detail"},
		{"initiator", names(initiatorOf("sendMessage")), "userId username device"},
		{"initiator that is a service", names(initiatorOf("sendMessage by a service")), "service"},
		{"user", names(all["user"]["public"]), "userId username displayName customData createdTime"},
		{"deleted user", names(all["user"]["deleted"]), "userId username deleted"},
		{"own user", names(all["user"]["own"]), "userId username displayName customData createdTime privateCustomData conversationsList leaveConversationList notifications"},
		{"error", names(all["error"]["refusal"]), "code number detail status"},
		{"distinct-conflict", names(all["error"]["distinct-conflict"]), "code number detail status conversation"},
		{"reply", names(all["reply"]["user"]), "requestId command result"},
		{"refusing reply", names(all["reply"]["refusal"]), "requestId command error"},
		{"empty result", names(jsonOf(t, all["reply"]["nothing to tell"])["result"]), ""},
		{"result of retransmitEvents", names(jsonOf(t, all["reply"]["events"])["result"]), "events from to"},
		{"result of createConversation", names(jsonOf(t, all["reply"]["conversation"])["result"]), "conversation existing"},
		{"conversationAdded", names(all["notice"]["conversationAdded"]), "type time conversationData"},
		{"conversationRemoved", names(all["notice"]["conversationRemoved"]), "type time conversation"},
		{"conflict", names(all["notice"]["conflict"]), "type time tag"},
		{"error notice", names(all["notice"]["error"]), "type time device topic requestId command error"},
	} {
		want := strings.Fields(tc.want)
		slices.Sort(want)
		if !slices.Equal(tc.got, want) {
			t.Errorf("%s has the fields %v, want %v", tc.what, tc.got, want)
		}
	}
}
