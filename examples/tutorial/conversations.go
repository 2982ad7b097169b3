package main

import (
	"slices"

	"github.com/parley-im/parley/examples/walk"
)

// result is what the commands on conversations answer.
type result struct {
	Conversation walk.Conversation
	Existing     bool
}

// retrieveConversations fetches conversations again, by one uuid and by several.
func (t *story) retrieveConversations() {
	t.Section("Retrieve conversations", `
A client fetches the conversations of its user by their uuids, at each login or whenever it needs one.`)
	var one result
	t.bob.Command("getConversation", walk.M{"uuid": t.welcome}, &one)
	t.Check(one.Conversation.LastSeq == 2, "the last event of the welcome is number %d", one.Conversation.LastSeq)
	bob := one.Conversation.Participant(t.name("bob"))
	t.Check(bob.LastRead < one.Conversation.LastSeq, "Bob has read up to %d: there is something new", bob.LastRead)
	t.bob.Refused("getConversation", walk.M{"uuid": "00000000-0000-7000-8000-000000000000"}, "conversation-not-found")
	t.alice.Seen(t.welcome, one.Conversation.LastSeq)
	t.bob.Seen(t.welcome, one.Conversation.LastSeq)
}

// createConversations makes the three kinds of the tutorial's demo clients: chat, direct and channel.
func (t *story) createConversations() {
	t.Section("Create conversations", `
createConversation makes them all; what differs is the flags. The caller becomes owner with every permission. permissions given for
the conversation are the defaults that newcomers inherit; permissions given with a participant are its own.`)

	t.Say("A chat, in which everybody may write, and Bob may bring others in. customData is the client's own.")
	permissions := walk.M{
		"canWrite": true, "canEdit": true, "canRemove": true,
		"canManageParticipants": true, "canEditAll": false, "canRemoveAll": false,
	}
	var made result
	t.alice.Command("createConversation", walk.M{
		"title": "Lunch", "direct": false, "publicJoin": false, "uber": false,
		"participants": []walk.M{t.with("bob", permissions)},
		"permissions":  walk.M{"canRead": true, "canWrite": true, "canRemove": true, "canEdit": false},
		"customData":   walk.M{"type": "chat", "image": "soup.png", "description": "Where and when", "permissions": permissions},
	}, &made)
	t.chat = made.Conversation.UUID
	c := made.Conversation
	t.Check(!made.Existing && c.Participant(t.name("alice")).Permissions.IsOwner, "Alice is the owner of the new chat %s", c.UUID)
	t.Check(c.Participant(t.name("bob")).Permissions.CanManageParticipants, "Bob may manage participants")
	t.Check(!c.Permissions.CanEdit && c.Permissions.CanWrite, "newcomers will be able to write, and not to edit")
	mine, his := t.both(t.chat, "createConversation")
	t.Check(mine.Seq == 1 && his.Seq == 1, "the creation is event 1, for both of them")
	t.Check(mine.RequestID != "" && his.RequestID == "", "Alice's devices can tell by the requestId what it answers; Bob has no use for it")
	n := t.bob.Notice("conversationAdded", about(t.chat))
	t.Check(n.ConversationData.Title == "Lunch", "Bob's inbox tells that he takes part in %q", n.ConversationData.Title)

	t.Say("Bob's tablet shows this chat alone: it subscribes to the one conversation, and gets what happens from now on.")
	t.tablet.Subscribe("conversations/" + t.chat + "/events")
	t.tablet.Seen(t.chat, 1)

	t.Say("A direct conversation: exactly two, one per pair. Whoever creates it again gets the one that exists.")
	t.alice.Command("createConversation", walk.M{"direct": true, "participants": []walk.M{t.ref("bob")}}, &made)
	t.direct = made.Conversation.UUID
	t.both(t.direct, "createConversation")
	var again result
	t.bob.Command("createConversation", walk.M{"direct": true, "participants": []walk.M{t.ref("alice")}}, &again)
	t.Check(again.Existing && again.Conversation.UUID == t.direct, "Bob's is the same as Alice's")
	t.alice.Refused("createConversation", walk.M{
		"direct": true, "publicJoin": true, "participants": []walk.M{t.ref("bob")},
	}, "direct-not-public-or-uber")
	t.alice.Refused("createConversation", walk.M{
		"direct": true, "participants": []walk.M{t.ref("bob"), t.ref("carol")},
	}, "direct-needs-two")

	t.Say("A channel, which the demo clients call broadcast: the default is to read; anybody may join.")
	t.alice.Command("createConversation", walk.M{
		"title": "News", "publicJoin": true, "permissions": walk.M{"canWrite": false, "canEdit": false, "canRemove": false},
		"customData": walk.M{"type": "channel"},
	}, &made)
	t.channel = made.Conversation.UUID
	t.alice.Event(t.channel, "createConversation")
	t.Check(made.Conversation.PublicJoin && !made.Conversation.Permissions.CanWrite, "it is public, and newcomers may not write")
}

// manageConversations changes title and customData.
func (t *story) manageConversations() {
	t.Section("Manage conversations", `
editConversation changes what belongs to the conversation: title, publicJoin, customData, default permissions. Only owners may.`)

	var edited result
	t.alice.Command("editConversation", walk.M{"uuid": t.chat, "title": "Lunch at noon"}, &edited)
	ev, _ := t.both(t.chat, "editConversation")
	t.Check(ev.ConversationData.Title == "Lunch at noon" && ev.Action == "editConversation", "both know the new title")
	t.Check(edited.Conversation.CustomData["image"] == "soup.png", "what was not named has stayed")

	t.Say("customData is replaced as a whole: a client copies what shall stay.")
	data := edited.Conversation.CustomData
	data["image"] = "noodles.png"
	t.alice.Command("editConversation", walk.M{"uuid": t.chat, "customData": data}, &edited)
	ev, _ = t.both(t.chat, "editConversation")
	t.Check(ev.ConversationData.CustomData["image"] == "noodles.png" && ev.ConversationData.CustomData["type"] == "chat",
		"the picture has changed, the rest was copied")

	t.bob.Refused("editConversation", walk.M{"uuid": t.chat, "title": "Mine"}, "access-denied")
}

// managePermissions changes what participants may do.
func (t *story) managePermissions() {
	t.Section("Edit permissions", `
editParticipants changes the permissions of participants; what is not named stays as it is. All of a list, or nothing.`)
	t.alice.Command("editParticipants", walk.M{
		"uuid": t.chat, "participants": []walk.M{t.with("bob", walk.M{"canManageParticipants": false})},
	}, nil)
	ev, _ := t.both(t.chat, "editConversation")
	p := ev.ConversationData.Participant(t.name("bob")).Permissions
	t.Check(ev.Action == "editParticipants" && !p.CanManageParticipants && p.CanWrite, "Bob may write, and no longer manage")
	t.bob.Refused("addParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, "access-denied")
	t.alice.Command("editParticipants", walk.M{
		"uuid": t.chat, "participants": []walk.M{t.with("bob", walk.M{"canManageParticipants": true})},
	}, nil)
	t.both(t.chat, "editConversation")
	t.alice.Refused("editParticipants", walk.M{
		"uuid": t.chat, "participants": []walk.M{t.with("bob", walk.M{"canWrite": false}), t.with("carol", walk.M{"canWrite": false})},
	}, "not-participant")
}

// manageParticipants adds and removes users, lets them join and leave, and removes a conversation.
func (t *story) manageParticipants() {
	alice, bob := t.alice, t.bob
	t.Section("Add and remove participants, join, leave, remove", `
Each change is an editConversation event, whose action says what it was and whose participants say whom it concerns.`)

	t.Say("Bob adds Carol, who inherits the default permissions. She is away: the log keeps it for her.")
	bob.Command("addParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, nil)
	ev, _ := t.both(t.chat, "editConversation")
	carol := ev.ConversationData.Participant(t.name("carol"))
	t.Check(ev.Action == "addParticipants" && ev.Participants[0].Username == t.name("carol"), "Carol was added by %s", ev.Initiator.Username)
	t.Check(carol.Permissions.CanWrite && !carol.Permissions.CanEdit, "her permissions are the chat's defaults")
	bob.Refused("addParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, "already-participant")

	t.Say("He removes her again.")
	bob.Command("removeParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, nil)
	ev, _ = t.both(t.chat, "editConversation")
	t.Check(ev.Action == "removeParticipants" && len(ev.ConversationData.Participants) == 2, "two participants are left")
	bob.Refused("removeParticipants", walk.M{"uuid": t.chat, "participants": []walk.M{t.ref("carol")}}, "not-participant")
	alice.Refused("addParticipants", walk.M{"uuid": t.direct, "participants": []walk.M{t.ref("carol")}}, "direct-no-add")

	t.Say("Bob finds Alice's channel among the public conversations, joins it, and may not write.")
	var public struct{ UUIDs []string }
	bob.Command("getPublicConversations", nil, &public)
	t.Check(slices.Contains(public.UUIDs, t.channel) && !slices.Contains(public.UUIDs, t.chat), "the channel is public, the chat is not")
	bob.Refused("joinConversation", walk.M{"uuid": t.direct}, "direct-no-join")
	var joined result
	bob.Command("joinConversation", walk.M{"uuid": t.channel}, &joined)
	ev = alice.Event(t.channel, "editConversation")
	t.Check(ev.Action == "joinConversation" && ev.Initiator.Username == t.name("bob"), "Alice learns that Bob has joined")
	ev = bob.Event(t.channel, "editConversation")
	t.Check(ev.Action == "joinConversation", "Bob's first event of the channel is his own joining")
	bob.Notice("conversationAdded", about(t.channel))
	bob.PublishRefused("conversations/"+t.channel+"/messages", walk.M{"text": "First!"}, "access-denied", 0x87)

	t.Say("Bob leaves it. What he left stays in his leaveConversationList.")
	bob.Command("leaveConversation", walk.M{"uuid": t.channel}, nil)
	ev = alice.Event(t.channel, "editConversation")
	t.Check(ev.Action == "leaveConversation", "Alice learns that he has left")
	ev = bob.Event(t.channel, "editConversation")
	t.Check(ev.Action == "leaveConversation", "it reaches Bob as well; what comes later does not")
	bob.Notice("conversationRemoved", about(t.channel))
	var me struct{ User walk.User }
	bob.Command("getMe", nil, &me)
	t.Check(slices.Contains(me.User.LeaveConversationList, t.channel), "his leaveConversationList has the channel")
	bob.Refused("leaveConversation", walk.M{"uuid": t.direct}, "direct-no-leave")

	t.Say("Alice closes an old chat as clients did so far: she removes all others, then leaves.")
	var old result
	alice.Command("createConversation", walk.M{"title": "Last year", "participants": []walk.M{t.ref("bob")}}, &old)
	alice.Command("removeParticipants", walk.M{"uuid": old.Conversation.UUID, "participants": []walk.M{t.ref("bob")}}, nil)
	alice.Command("leaveConversation", walk.M{"uuid": old.Conversation.UUID}, nil)
	for _, client := range []*walk.Client{alice, bob} {
		client.Event(old.Conversation.UUID, "createConversation")
		ev = client.Event(old.Conversation.UUID, "editConversation")
		t.Check(ev.Action == "removeParticipants", "%s knows that Bob was removed", client.Name)
	}
	ev = alice.Event(old.Conversation.UUID, "editConversation")
	t.Check(ev.Action == "leaveConversation" && len(ev.ConversationData.Participants) == 0, "nobody is left")

	t.Say("With removeConversation it is one step: the channel is gone for all.")
	alice.Command("removeConversation", walk.M{"uuid": t.channel}, nil)
	ev = alice.Event(t.channel, "removeConversation")
	t.Check(ev.Seq == 4, "the last event of the channel is number %d", ev.Seq)
	alice.PublishRefused("conversations/"+t.channel+"/messages", walk.M{"text": "?"}, "conversation-removed", 0x83)
}

// about fits notices about the conversation.
func about(conversation string) func(walk.Notice) bool {
	return func(n walk.Notice) bool {
		return n.Conversation == conversation || n.ConversationData.UUID == conversation
	}
}
