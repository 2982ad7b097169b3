package main

import (
	"slices"
	"strconv"

	"github.com/parley-im/parley/examples/walk"
)

// transient sends what is for those online only.
func (t *story) transient() {
	t.Section("Transient messages", `
What nobody needs later reaches those who are online, as a signal. It is neither stored nor numbered nor counted.`)
	before := t.jerry.Unread(t.chat)
	ack := t.tom.Publish(t.messages(), walk.M{
		"messageType": 2, "attributes": walk.M{"status": "is choosing a picture"}, "options": walk.M{"transient": true},
	})
	t.Check(ack.Properties["seq"] == "", "the acknowledgement has no number")
	s := t.jerry.Signal(t.chat, "transientMessage")
	t.Check(s.Message.Attributes["status"] == "is choosing a picture" && s.Initiator.Username == t.name("tom"), "Jerry got it")
	after := t.jerry.Unread(t.chat)
	t.Check(after.LastSeq == before.LastSeq && after.Unread == before.Unread, "the conversation is as it was: %d events", after.LastSeq)

	t.Say("For typing there is a topic of its own.")
	t.jerry.Publish("conversations/"+t.chat+"/typing", walk.M{"state": "started"})
	t.Check(t.tom.Signal(t.chat, "typing").State == "started", "Jerry is typing")
}

// by fits signals that are about the user and reach to the number.
func (t *story) by(short string, seq int64) func(walk.Signal) bool {
	return func(s walk.Signal) bool { return s.UserID == t.users[short].UserID && s.Seq >= seq }
}

// receipts asks for receipts, and gets them.
func (t *story) receipts() {
	t.Section("Receipts", `
MQTT's own acknowledgement of a delivered message is the delivery receipt; reading is what the app says. Both are watermarks: all
events up to a number.`)
	ack := t.tom.Publish(t.messages(), walk.M{"text": "A very important message.", "options": walk.M{"receipt": true}})
	seq, _ := strconv.ParseInt(ack.Properties["seq"], 10, 64)
	_, ev := t.both("sendMessage")
	t.Check(ev.Message.Receipt, "Jerry's app sees that a receipt is wanted")
	s := t.tom.Signal(t.chat, "delivered", t.by("jerry", seq))
	t.Check(s.Time > 0, "Tom learns that everything up to %d was delivered to Jerry, at %d", s.Seq, s.Time)
	t.receipt(ev.Message.UUID, "delivered")

	t.Say("Jerry reads: an empty publish marks everything as read.")
	t.jerry.Publish("conversations/"+t.chat+"/read", []byte{})
	s = t.tom.Signal(t.chat, "read", t.by("jerry", seq))
	t.Check(s.Seq == seq && s.Time > 0, "Tom learns that Jerry has read up to %d", s.Seq)
	t.receipt(ev.Message.UUID, "read")
}

// receipt asks for the receipts of a message.
func (t *story) receipt(message, want string) {
	var r walk.Receipts
	t.tom.Command("getReceipts", walk.M{"conversation": t.chat, "message": message}, &r)
	t.Check(r.RecipientStatus[strconv.FormatInt(t.users["jerry"].UserID, 10)] == want && r.DeliveryStatus == "all",
		"getReceipts: %s by Jerry", want)
	t.Check(r.LastDeliveredAt > 0 && (r.LastReadAt > 0) == (want == "read"), "with the times of a conversation of two")
}

// unread shows the counts, at login and between devices.
func (t *story) unread() {
	t.Section("Unread messages", `
The gateway counts; at login the inbox tells what is new, and reading on one device is told to the others.`)
	t.Check(t.jerry.Unread(t.chat).Unread == 0, "Jerry has read everything")
	t.jerry.Leave()
	t.tom.Publish(t.messages(), walk.M{"text": "Where are you?", "mentions": walk.M{"users": []string{t.name("jerry")}}})
	ev := t.tom.Event(t.chat, "sendMessage")

	t.jerry = t.Connect(t.login("jerry", "jerry", 3))
	t.jerry.Listen()
	here := func(n walk.Notice) bool { return n.Conversation == t.chat }
	n := t.jerry.Notice("unread", here)
	t.Check(n.Unread == 1 && n.LastMessage.Text == "Where are you?", "at login Jerry learns of 1 unread message, and which it is")
	t.jerry.Seen(t.chat, ev.Seq)

	pad := t.Connect(t.login("jerry", "pad", 5))
	pad.Listen()
	pad.Notice("unread", here)
	t.jerry.Command("markAsRead", walk.M{"conversation": t.chat, "seq": ev.Seq}, nil)
	n = pad.Notice("unread", here, func(n walk.Notice) bool { return n.Unread == 0 })
	t.Check(n.Type == "unread", "his other device learns that nothing is unread any more")
	pad.Leave()
}

// recallAndEdit removes and changes messages, also by the backend.
func (t *story) recallAndEdit() {
	t.Section("Recall and edit", `
One's own messages, with canRemove and canEdit. A backend may change any, and says why.`)
	var sent struct{ Message walk.Message }
	t.tom.Command("sendMessage", walk.M{"conversation": t.chat, "text": "Oops"}, &sent)
	t.both("sendMessage")
	t.tom.Command("removeMessage", walk.M{"conversation": t.chat, "message": sent.Message.UUID}, nil)
	_, ev := t.both("removeMessage")
	t.Check(ev.Message.UUID == sent.Message.UUID && ev.Reason == nil, "recalled by its sender: no reason")

	t.tom.Command("sendMessage", walk.M{"conversation": t.chat, "text": "Darn, I am late"}, &sent)
	t.both("sendMessage")
	t.tom.Command("editMessage", walk.M{"conversation": t.chat, "message": sent.Message.UUID, "text": "Darn, I am very late"}, nil)
	_, ev = t.both("editMessage")
	t.Check(ev.Message.Text == "Darn, I am very late" && ev.Reason == nil, "edited by its sender: no reason")
	t.jerry.Refused("editMessage", walk.M{"conversation": t.chat, "message": sent.Message.UUID, "text": "Mine"}, "access-denied")

	t.Say("The backend keeps the language clean.")
	t.backend.Call("PATCH", "/v1/conversations/"+t.chat+"/messages/"+sent.Message.UUID, walk.M{
		"text": "****, I am very late", "reason": walk.M{"code": 7, "detail": "language"},
	}, nil)
	ev, _ = t.both("editMessage")
	t.Check(ev.Reason != nil && ev.Reason.Code == 7 && ev.Initiator.Service == "Backend",
		"the sender gets the event as well, with the backend's reason %d", ev.Reason.Code)
}

// mute keeps one's phone quiet.
func (t *story) mute() {
	t.Section("Muting", `
Who mutes a conversation stays in it and gets its events, without pushes. Nobody else is told.`)
	t.jerry.Command("muteConversation", walk.M{"uuid": t.chat, "muted": true}, nil)
	var me struct{ User walk.User }
	t.jerry.Command("getMe", nil, &me)
	t.Check(slices.Contains(me.User.MutedConversations, t.chat), "Jerry's mutedConversations has it")
	t.tom.Publish(t.messages(), walk.M{"text": "Anybody there?"})
	t.both("sendMessage")
	t.jerry.Command("muteConversation", walk.M{"uuid": t.chat, "muted": false}, nil)
	me.User = walk.User{}
	t.jerry.Command("getMe", nil, &me)
	t.Check(me.User.UserID == t.users["jerry"].UserID && len(me.User.MutedConversations) == 0, "now it does not have it")
}

// undelivered repeats a message from another connection.
func (t *story) undelivered() {
	t.Section("Undelivered messages", `
A client that has no acknowledgement keeps the message in a queue of its own, with an id, and sends it again: from any connection.`)
	m := walk.M{"id": "note-1", "text": "Stored once"}
	first := t.tom.Publish(t.messages(), m)
	t.both("sendMessage")
	t.tom.Cut()
	t.tom = t.Connect(t.login("tom", "tom", 5))
	t.tom.Listen()
	again := t.tom.Publish(t.messages(), m)
	t.Check(again.Properties["duplicate"] == "1" && again.Properties["seq"] == first.Properties["seq"] &&
		again.Properties["message"] == first.Properties["message"], "it is the same message, number %s", again.Properties["seq"])
	t.tom.Publish(t.messages(), walk.M{"text": "And on"})
	_, ev := t.both("sendMessage")
	t.Check(ev.Message.Text == "And on", "Jerry has not got it twice")
}

// synchronize comes back with a durable session.
func (t *story) synchronize() {
	t.Section("Synchronize", `
Pulling is getUnread and retransmitEvents. Where LeanMessage would push the newest 20, a durable session gets everything that it has not
acknowledged, in order; here in MQTT 3.1.1, with clean session false.`)
	t.jerry.Leave()
	durable := t.login("jerry", "jerry at home", 3)
	durable.Durable = true
	t.jerry = t.Connect(durable)
	t.jerry.Listen()
	t.jerry.Cut()
	const missed = 25
	var first int64
	t.Quietly("Tom sends "+strconv.Itoa(missed)+" messages", func() {
		for i := 1; i <= missed; i++ {
			t.tom.Publish(t.messages(), walk.M{"text": "line " + strconv.Itoa(i)})
			ev := t.tom.Event(t.chat, "sendMessage")
			if first == 0 {
				first = ev.Seq
			}
		}
	})
	t.jerry = t.Connect(durable)
	t.jerry.Seen(t.chat, first-1)
	for i := 1; i <= missed; i++ {
		ev := t.jerry.Event(t.chat, "sendMessage")
		if ev.Message.Text != "line "+strconv.Itoa(i) {
			t.Check(false, "line %d is %q", i, ev.Message.Text)
		}
	}
	t.Check(true, "all %d messages came, in order, without being asked for", missed)
}
