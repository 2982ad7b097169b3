package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestSubscriptionToOneConversationHearsNoOther(t *testing.T) {
	// A screen that shows one conversation is not to pay for all the others; unsubscribing ends it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		one, other := w.conversation(t, users...), w.conversation(t, users...)
		bob := w.connect(t, users[1], version)
		bob.subscribe(t, 1, eventsTopic(one))
		alice := w.online(t, users[0], version)
		alice.say(t, other, text("unheard"))
		alice.say(t, one, text("heard"))
		if ev := bob.hear(t, one); ev.Seq != 2 || ev.Message.Text != "heard" {
			t.Errorf("heard %s", ev.raw)
		}
		bob.subscribe(t, 0, eventsTopic(one)) // replaces the subscription
		alice.say(t, one, text("with QoS 0"))
		if ev := bob.hear(t, one); ev.Seq != 3 || ev.received.qos != 0 {
			t.Errorf("heard %s with QoS %d", ev.raw, ev.received.qos)
		}
		bob.unsubscribe(t, eventsTopic(one))
		bob.subscribe(t, 1, eventsTopic(other))
		alice.say(t, one, text("unheard"))
		alice.say(t, other, text("heard"))
		if ev := bob.hear(t, other); ev.Seq != 3 {
			t.Errorf("heard %s", ev.raw)
		}
		bob.heardAll(t)
	})
}

func TestInboxTellsOfMembership(t *testing.T) {
	// A client that was offline in a conversation's list must learn that it is now in it, and when no longer.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := w.online(t, users[0], version), w.online(t, users[1], version), w.online(t, users[2], version)
		var made struct{ Conversation conversation }
		alice.command(t, "createConversation", map[string]any{"title": "Lunch", "participants": refs(users[1])}).into(t, &made)
		c := made.Conversation.UUID
		for _, d := range []*device{alice, bob} {
			n := d.notice(t, "conversationAdded")
			if n.ConversationData == nil || n.ConversationData.UUID != c || n.ConversationData.Title != "Lunch" {
				t.Errorf("%s: %s", d.user.Name, n.received.payload)
			}
			if ev := d.hear(t, c); ev.Type != "createConversation" || ev.Seq != 1 || len(ev.ConversationData.Participants) != 2 {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.command(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(users[2])}).into(t, &struct{}{})
		if n := carol.notice(t, "conversationAdded"); n.ConversationData == nil || n.ConversationData.UUID != c {
			t.Errorf("carol: %s", n.received.payload)
		}
		for _, d := range []*device{alice, bob, carol} {
			ev := d.hear(t, c)
			if ev.Type != "editConversation" || ev.Action != "addParticipants" || ev.Seq != 2 ||
				len(ev.Participants) != 1 || ev.Participants[0].UserID != users[2].ID || ev.Participants[0].JoinedSeq != 2 {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.command(t, "removeParticipants", map[string]any{"uuid": c, "participants": refs(users[1])}).into(t, &struct{}{})
		if n := bob.notice(t, "conversationRemoved"); n.Conversation != c {
			t.Errorf("bob: %s", n.received.payload)
		}
		for _, d := range []*device{alice, bob, carol} {
			if ev := d.hear(t, c); ev.Action != "removeParticipants" || ev.Seq != 3 || len(ev.Participants) != 1 || ev.Participants[0].UserID != users[1].ID {
				t.Errorf("%s: %s", d.user.Name, ev.raw)
			}
		}
		alice.say(t, c, text("without bob"))
		carol.hear(t, c)
		next := w.conversation(t, users[1])
		bob.hear(t, next)
		bob.heardAll(t)
		for _, d := range []*device{alice, carol} {
			for _, m := range d.inbox.unasked() {
				t.Errorf("%s got in the inbox: %s", d.user.Name, m.payload)
			}
		}
	})
}

func TestSubscriptionsBeyondOnesOwnAreRefused(t *testing.T) {
	// What is not in the table of topics does not exist, and what is others' is theirs.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "mallory", "victim", "friend")
		other := newWorld(t, w.gateway)
		stranger := other.user(t, "stranger")
		theirs := w.conversation(t, users[1], users[2])
		abroad := other.conversation(t, stranger)
		mine := w.conversation(t, users[0])
		d := w.connect(t, users[0], version)
		victim := users[1]
		for _, f := range []string{
			"#", "+", "+/+", "$SYS/#", "conversations/#", "conversations/+/+", "conversations/" + mine + "/#",
			"conversations/" + mine + "/+", "conversations/" + mine, messagesTopic(mine), rawTopic(mine), "conversations/+/messages",
			eventsTopic(theirs), eventsTopic(abroad), "conversations/" + theirs + "/signals",
			eventsTopic("00000000-0000-0000-0000-000000000000"), eventsTopic("01890000-0000-7000-8000-000000000000"),
			eventsTopic("nonsense"), eventsTopic(strings.ToUpper(mine)),
			victim.inbox(), victim.replies(), victim.replies() + "/#", stranger.inbox(), "users/+/inbox", "users/#", "users/+/replies",
			"users/" + users[0].Name + "/+", "users/" + users[0].Name + "/#", "users/" + users[0].Name, "commands/#", "commands/getMe",
			"devices/1/state", "$share/group/" + eventsTopic(mine), "$share/group/conversations/+/events",
			"$share/group/" + users[0].inbox(), "conversations/+/events/", "/conversations/+/events", " ",
		} {
			codes, err := d.trySubscribe(t.Context(), 1, f)
			if err != nil {
				t.Fatalf("%q: %v", f, err)
			}
			if version == 4 && codes[0] != 0x80 || version == 5 && codes[0] < 0x80 {
				t.Errorf("%q: SUBACK 0x%02x", f, codes[0])
			}
			if version == 5 && !strings.Contains(f, "00000000") && !strings.Contains(f, "01890000") && f != eventsTopic(abroad) &&
				f != "conversations/"+theirs+"/signals" && codes[0] != 0x87 {
				t.Errorf("%q: SUBACK 0x%02x, want 0x87", f, codes[0])
			}
		}
		// A refused entry does not take the others down.
		codes, err := d.trySubscribe(t.Context(), 1, eventsTopic(theirs), eventsTopic(mine), victim.inbox(), users[0].inbox())
		if err != nil || codes[0] < 0x80 || codes[1] != 1 || codes[2] < 0x80 || codes[3] != 1 {
			t.Errorf("SUBACK % x, %v", codes, err)
		}
		w.as(t, victim).ok(t, "POST", "/v1/conversations/"+theirs+"/messages", text("secret"))
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+mine+"/messages", text("mine"))
		if ev := d.hear(t, mine); ev.Seq != 2 {
			t.Errorf("heard %s", ev.raw)
		}
		for _, b := range []*box{d.events, d.inbox, d.other, d.replies} {
			for _, m := range b.rest() {
				t.Errorf("mallory got %s: %s", m.topic, m.payload)
			}
		}
		if p := w.as(t, users[0]); len(p.token) == 0 { // the session lives on
			t.Error("no token")
		}
	})
}

func TestConversationOfOthersLooksLikeNone(t *testing.T) {
	// From another account tree nobody may learn which conversations exist.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		other := newWorld(t, w.gateway)
		abroad := other.conversation(t, other.user(t, "stranger"))
		nothing := "01890000-0000-7000-8000-000000000000"
		d := w.online(t, w.user(t, "alice"), version)
		look := func(id string) []any {
			var out []any
			codes, err := d.trySubscribe(t.Context(), 1, eventsTopic(id))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, codes)
			for name, params := range map[string]map[string]any{
				"getConversation":    {"uuid": id},
				"getConversations":   {"uuids": []string{id}},
				"addParticipants":    {"uuid": id, "participants": refs(d.user)},
				"removeParticipants": {"uuid": id, "participants": refs(d.user)},
				"sendMessage":        {"conversation": id, "text": "hello"},
				"retransmitEvents":   {"conversation": id, "from": 1, "count": 1},
			} {
				r := d.command(t, name, params)
				if r.Error == nil || r.Error.Number != 8 || r.Error.Code != "conversation-not-found" || r.Error.Status != 404 {
					t.Errorf("%s: %+v %s", name, r.Error, r.Result)
				}
			}
			a := d.publish(t, publishing{topic: messagesTopic(id), qos: 1, payload: mustJSON(t, text("hello"))})
			if version == 5 && a.reason != 0x83 {
				t.Errorf("PUBACK 0x%02x", a.reason)
			}
			out = append(out, a)
			for _, res := range []response{
				w.as(t, d.user).any(t, "GET", "/v1/conversations/"+id, nil),
				w.as(t, d.user).any(t, "POST", "/v1/conversations/"+id+"/messages", text("hello")),
				w.as(t, d.user).any(t, "GET", "/v1/conversations/"+id+"/events?from=1&count=1", nil),
				w.service.any(t, "GET", "/v1/conversations/"+id, nil),
			} {
				out = append(out, res.status, string(res.body))
			}
			return out
		}
		if a, b := look(abroad), look(nothing); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("a conversation of others looks like\n%v\nand none like\n%v", a, b)
		}
	})
}

func TestRequestIDIsForTheInitiatorsDevicesOnly(t *testing.T) {
	// It tells a device which of its messages has come back; to others it would be noise, or a leak.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		sending, second, bob := w.online(t, users[0], version), w.online(t, users[0], version), w.online(t, users[1], version)
		service := w.connect(t, user{Name: "service/Billing@" + w.account, password: w.service.token}, version)
		service.subscribe(t, 1, "conversations/+/events")
		sending.say(t, c, map[string]any{"text": "hi", "requestId": "mine"})
		for d, want := range map[*device]string{sending: "mine", second: "mine", bob: "", service: ""} {
			ev := d.hear(t, c)
			if ev.RequestID != want || ev.Initiator.Device != sending.id {
				t.Errorf("%s (%s) hears %s", d.user.Name, d.id, ev.raw)
			}
		}
		var page struct{ Events []event }
		sending.command(t, "retransmitEvents", map[string]any{"conversation": c, "from": 2, "count": 1}).into(t, &page)
		if page.Events[0].RequestID != "" {
			t.Errorf("a retransmitted event has requestId %q", page.Events[0].RequestID)
		}
	})
}

func TestServiceHearsEveryConversationOfItsTree(t *testing.T) {
	// A backend that archives or moderates must see all of its account, and nothing of another.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		other := newWorld(t, w.gateway)
		stranger := other.user(t, "stranger")
		users := w.users(t, "alice", "bob")
		before := w.conversation(t, users...)
		service := w.connect(t, user{Name: "service/Billing@" + w.account, password: w.service.token}, version)
		service.subscribe(t, 1, "conversations/+/events")
		abroad := other.conversation(t, stranger)
		after := w.conversation(t, users[1])
		w.as(t, users[0]).ok(t, "POST", "/v1/conversations/"+before+"/messages", text("hello"))
		if ev := service.hear(t, before); ev.Seq != 2 {
			t.Errorf("heard %s", ev.raw)
		}
		if ev := service.hear(t, after); ev.Seq != 1 {
			t.Errorf("heard %s", ev.raw)
		}
		a := service.publish(t, publishing{topic: messagesTopic(before), qos: 1, payload: mustJSON(t, text("from the backend"))})
		if a.reason != 0 {
			t.Errorf("PUBACK 0x%02x %s", a.reason, a.text)
		}
		if ev := service.hear(t, before); ev.Seq != 3 || ev.Initiator.Service != "Billing" || ev.Message.Sender.Service != "Billing" {
			t.Errorf("heard %s", ev.raw)
		}
		for _, m := range service.events.rest() {
			t.Errorf("the service of %s heard %s (another account's: %t)", w.account, m.topic, m.topic == eventsTopic(abroad))
		}
	})
}

func TestDeliveryIsGrantedAtMostQoS1(t *testing.T) {
	// A library that asks for 2 gets what there is and is told so.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice")
		c := w.conversation(t, users...)
		d := w.connect(t, users[0], version)
		for asked, want := range []byte{0, 1, 1} {
			codes, err := d.trySubscribe(t.Context(), byte(asked), "conversations/+/events")
			if err != nil || codes[0] != want {
				t.Errorf("QoS %d: SUBACK % x, %v", asked, codes, err)
			}
			d.say(t, c, text("hi"))
			if ev := d.hear(t, c); ev.received.qos != want {
				t.Errorf("subscribed with QoS %d, delivered with %d", asked, ev.received.qos)
			}
		}
	})
}
