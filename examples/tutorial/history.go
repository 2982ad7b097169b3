package main

import (
	"fmt"

	"github.com/parley-im/parley/examples/walk"
)

// page is the answer to retransmitEvents, and to its HTTP route.
type page struct {
	Events   []walk.Event
	From, To int64
}

// retransmit fetches what happened while Bob was away, in each of the three forms.
func (t *story) retransmit() {
	alice := t.alice
	t.Section("Retransmit events", `
A client that was away compares lastSeq of its conversations with the last number it has seen, and asks for what is between: from-to,
from-count or count-to, up to 100 events at a time. (A durable MQTT session gets it without asking.)`)

	t.bob.Leave()
	t.Say("While Bob is away, Alice writes, and lets Carol in.")
	alice.Publish(messages(t.chat), walk.M{"text": "Bob?"})
	alice.Event(t.chat, "sendMessage")
	alice.Command("addParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, nil)
	last := alice.Event(t.chat, "editConversation").Seq

	t.Say("He is back.")
	bob := t.Connect(walk.Login{Name: "bob", Username: t.name("bob"), Password: "bob's password"})
	bob.Listen()
	bob.Seen(t.welcome, 2)
	t.bob = bob
	var c result
	bob.Command("getConversation", walk.M{"uuid": t.chat}, &c)
	seen := last - 2
	t.Check(c.Conversation.LastSeq == last, "the last event is %d; Bob has seen %d", last, seen)
	var missed page
	bob.Command("retransmitEvents", walk.M{"conversation": t.chat, "from": seen + 1, "to": last}, &missed)
	t.Check(len(missed.Events) == 2 && missed.Events[0].Message.Text == "Bob?" && missed.Events[1].Action == "addParticipants",
		"he missed a message and Carol's return")
	bob.Seen(t.chat, last)

	t.Say("The whole chat, from the first event on; and its last five.")
	var all, five page
	bob.Command("retransmitEvents", walk.M{"conversation": t.chat, "from": 1, "count": 100}, &all)
	t.Check(all.From == 1 && all.To == last && int64(len(all.Events)) == last, "%d events, without a gap", last)
	bob.Command("retransmitEvents", walk.M{"conversation": t.chat, "to": last, "count": 5}, &five)
	t.Check(five.From == last-4 && five.To == last, "events %d to %d", five.From, five.To)
	t.Check(all.Events[t.edited.Seq-1].Message.Text == "Noodle soup?", "a message that was edited shows its present text")
	gone := all.Events[t.removed.Seq-1].Message
	t.Check(gone.Removed && gone.Text == "" && gone.UUID == t.removed.UUID, "of a removed message nothing is left but its place")

	t.Say("Up to 100 events at a time; the tutorial's range, from lastSeq - 100 to lastSeq, is 101 and served as well.")
	t.Quietly("the backend fills the welcome up to event 102, and Bob fetches events 2 to 102", func() {
		for seq := int64(3); seq <= 102; seq++ {
			t.backend.Call("POST", "/v1/conversations/"+t.welcome+"/messages", walk.M{"text": "Day after day"}, nil)
			t.both(t.welcome, "sendMessage")
		}
		bob.Command("retransmitEvents", walk.M{"conversation": t.welcome, "from": 2, "to": 102}, &all)
	})
	t.Check(len(all.Events) == 101 && all.From == 2 && all.To == 102, "%d events", len(all.Events))
	bob.Refused("retransmitEvents", walk.M{"conversation": t.welcome, "from": 1, "to": 102}, "count-out-of-range")

	t.Say("Exactly two of from, to and count.")
	for _, refused := range []struct {
		which walk.M
		code  string
	}{
		{walk.M{"from": 1, "to": 2, "count": 2}, "too-many-range-arguments"},
		{walk.M{"from": 1}, "too-few-range-arguments"},
		{walk.M{"from": 1, "count": 101}, "count-out-of-range"},
		{walk.M{"from": 2, "to": 1}, "from-after-to"},
		{walk.M{"from": 1, "to": last + 1}, "sequence-out-of-range"},
	} {
		refused.which["conversation"] = t.chat
		bob.Refused("retransmitEvents", refused.which, refused.code)
	}
}

// allEvents compares what the clients heard with what the store has, and counts the types of events.
func (t *story) allEvents() {
	t.Section("All events", `
At last the backend reads the log of the chat over HTTP.`)
	var log page
	t.backend.Call("GET", "/v1/conversations/"+t.chat+"/events?from=1&count=100", nil, &log)
	for i, ev := range log.Events {
		if ev.Seq != int64(i)+1 {
			t.Check(false, "event %d is number %d", ev.Seq, i+1)
		}
	}
	t.Check(log.To == int64(len(log.Events)), "the log has %d events, without a gap", log.To)

	t.Say("Bob's tablet has been there all the time: it has every event since it subscribed, in the same order.")
	for _, ev := range log.Events[1:] {
		t.tablet.Event(t.chat, ev.Type)
	}
	t.Check(log.To == 15, "from event 2 to event %d", log.To)

	counts := make(map[string]int)
	for _, ev := range log.Events {
		counts[ev.Action]++
	}
	t.Check(fmt.Sprint(counts) == fmt.Sprint(map[string]int{
		"createConversation": 1, "editConversation": 2, "editParticipants": 2, "addParticipants": 2, "removeParticipants": 1,
		"sendMessage": 5, "editMessage": 1, "removeMessage": 1,
	}), "they are what this tutorial did: %v", counts)

	for _, kind := range []string{
		"createConversation", "editConversation", "removeConversation", "sendMessage", "editMessage", "removeMessage", // events
		"typing", "read", // signals
		"conversationAdded", "conversationRemoved", "unread", "setStatus", "editUser", "subscribe", "unsubscribe", // inbox
	} {
		t.Check(t.Heard(kind) > 0, "%s was received", kind)
	}
}
