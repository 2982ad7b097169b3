package main

import (
	"strconv"
	"strings"

	"github.com/parley-im/parley/examples/walk"
)

func messages(conversation string) string { return "conversations/" + conversation + "/messages" }

// sendAndReceive sends messages by topic and by command, from both versions of MQTT.
func (t *story) sendAndReceive() {
	alice, bob := t.alice, t.bob
	t.Section("Send and receive messages", `
A message is a publish to the conversation's messages topic. Its acknowledgement means: committed, and this is its number. Everybody
who takes part gets the event, the sender's own devices included.`)

	ack := alice.Publish(messages(t.chat), walk.M{"text": "Soup?", "payload": []walk.M{{"type": "suggestion", "dish": "soup"}}})
	mine, his := t.both(t.chat, "sendMessage")
	t.Check(ack.Properties["seq"] == strconv.FormatInt(mine.Seq, 10) && ack.Properties["message"] == mine.Message.UUID,
		"the acknowledgement has number and uuid of the message")
	t.Check(his.Message.Text == "Soup?" && his.Message.Payload[0]["dish"] == "soup" && his.Initiator.Username == t.name("alice"),
		"Bob got text and payload")
	t.edited = his.Message

	t.Say("Bob's version of MQTT has no room for that in the acknowledgement: with a requestId he is answered by a reply as well.")
	bob.Publish(messages(t.chat), walk.M{"text": "Yes! And pie.", "requestId": "pie"})
	var answer struct{ Message walk.Message }
	bob.Reply("pie", &answer)
	_, his = t.both(t.chat, "sendMessage")
	t.Check(answer.Message.UUID == his.Message.UUID && answer.Message.Seq == his.Seq, "the reply has the message, number %d", his.Seq)
	t.Check(his.RequestID == "pie", "and his own event shows the requestId")

	t.Say("A client that is not sure whether a message has arrived sends it again, with the same id.")
	first := alice.Publish(messages(t.chat), walk.M{"id": "draft-17", "text": "Which pie?"})
	second := alice.Publish(messages(t.chat), walk.M{"id": "draft-17", "text": "Which pie?"})
	t.Check(second.Properties["duplicate"] == "1" && second.Properties["seq"] == first.Properties["seq"], "it was stored once")
	_, his = t.both(t.chat, "sendMessage")
	t.removed = his.Message

	t.Say("sendMessage is a command as well, and a route of HTTP.")
	var sent struct{ Message walk.Message }
	alice.Command("sendMessage", walk.M{"conversation": t.chat, "text": "Apple, I hope."}, &sent)
	ev, _ := t.both(t.chat, "sendMessage")
	t.Check(ev.Message.UUID == sent.Message.UUID, "the reply and the event tell of the same message")
	alice.Refused("sendMessage", walk.M{"conversation": t.chat, "text": strings.Repeat("a", 5001)}, "message-too-large")
}

// typingAndReading shows the signals, and the count of unread messages.
func (t *story) typingAndReading() {
	alice, bob, tablet := t.alice, t.bob, t.tablet
	t.Section("Typing and reading", `
Typing and reading are signals: told to those who are there, neither numbered nor stored. How far somebody has read is kept, in the
participant's lastRead.`)

	alice.Publish("conversations/"+t.chat+"/typing", walk.M{})
	s := bob.Signal(t.chat, "typing")
	t.Check(s.Initiator.Username == t.name("alice") && s.State == "started", "Alice has %s typing", s.State)
	bob.Command("typing", walk.M{"conversation": t.chat, "state": "started"}, nil)
	alice.Signal(t.chat, "typing", func(s walk.Signal) bool { return s.Initiator.Username == t.name("bob") })

	last := t.removed.Seq + 1
	t.Say("Alice has sent three messages that Bob has not read.")
	t.Check(bob.Unread(t.chat).Unread == 3, "Bob has 3 unread messages in the chat")
	bob.Command("markAsRead", walk.M{"conversation": t.chat, "seq": last}, nil)
	s = alice.Signal(t.chat, "read", func(s walk.Signal) bool { return s.UserID == t.users["bob"].UserID })
	t.Check(s.Seq == last, "Alice learns that Bob has read up to %d", s.Seq)
	n := tablet.Notice("unread", about(t.chat))
	t.Check(n.Unread == 0, "Bob's tablet learns that nothing is unread any more")
	var c result
	alice.Command("getConversation", walk.M{"uuid": t.chat}, &c)
	t.Check(c.Conversation.Participant(t.name("bob")).LastRead == last, "his lastRead is %d", last)

	t.Say("It may go back, too: Bob wants to answer later, and marks the last message as unread.")
	bob.Publish("conversations/"+t.chat+"/read", walk.M{"seq": last - 1})
	s = alice.Signal(t.chat, "read", func(s walk.Signal) bool { return s.UserID == t.users["bob"].UserID })
	t.Check(s.Seq == last-1 && bob.Unread(t.chat).Unread == 1, "one message is unread again")
	tablet.Notice("unread", about(t.chat), func(n walk.Notice) bool { return n.Unread == 1 })
	bob.Refused("markAsRead", walk.M{"conversation": t.chat, "seq": last + 100}, "sequence-out-of-range")
}

// editAndRemove changes a message and removes another.
func (t *story) editAndRemove() {
	alice, bob := t.alice, t.bob
	t.Section("Edit and remove messages", `
One's own with canEdit and canRemove; anybody's with canEditAll and canRemoveAll. What is left out of an edit stays as it is.`)

	var changed struct{ Message walk.Message }
	alice.Command("editMessage", walk.M{"conversation": t.chat, "message": t.edited.UUID, "text": "Noodle soup?"}, &changed)
	_, his := t.both(t.chat, "editMessage")
	t.Check(his.Message.UUID == t.edited.UUID && his.Message.Text == "Noodle soup?", "Bob has the new text")
	t.Check(his.Message.Payload[0]["dish"] == "soup" && his.Message.EditCount == 1, "the payload is as it was; edited once")
	bob.Refused("editMessage", walk.M{"conversation": t.chat, "message": t.edited.UUID, "text": "No soup"}, "access-denied")

	alice.Command("removeMessage", walk.M{"conversation": t.chat, "message": t.removed.UUID}, nil)
	_, his = t.both(t.chat, "removeMessage")
	t.Check(his.Message.UUID == t.removed.UUID && his.Message.Text == "", "Bob learns which message is gone, and no more")
	alice.Refused("editMessage", walk.M{"conversation": t.chat, "message": t.removed.UUID, "text": "?"}, "message-removed")
	alice.Refused("removeMessage", walk.M{"conversation": t.chat, "message": t.removed.UUID}, "message-removed")
}
