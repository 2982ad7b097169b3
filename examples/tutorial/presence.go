package main

import (
	"encoding/json"
	"strings"

	"github.com/parley-im/parley/examples/walk"
)

// presence shows status, subscriptions to users, and changes of a user's own record.
func (t *story) presence() {
	alice, bob, tablet := t.alice, t.bob, t.tablet
	t.Section("Presence", `
setStatus tells those who subscribed to the user whether it is available. Clients of other systems repeat it every few minutes; with
Parley that does no harm and is not needed, since presence ends with the last connection.`)

	t.Say("Bob subscribes to Alice. His tablet is told; Alice is not.")
	bob.Command("subscribe", walk.M{"users": []int64{t.users["alice"].UserID}}, nil)
	n := tablet.Notice("subscribe")
	t.Check(strings.Contains(string(n.Users), number(t.users["alice"].UserID)), "the tablet knows whom Bob has subscribed to")
	var subscriptions struct{ Users json.RawMessage }
	bob.Command("getSubscriptions", nil, &subscriptions)
	t.Check(strings.Contains(string(subscriptions.Users), number(t.users["alice"].UserID)), "getSubscriptions lists Alice")

	about := func(short string, online bool) func(walk.Notice) bool {
		return func(n walk.Notice) bool { return n.UserID == t.users[short].UserID && n.Online == online }
	}
	t.Say("Alice says that she is there: setStatus with online, or with a state.")
	alice.Command("setStatus", walk.M{"online": true}, nil)
	n = bob.Notice("setStatus", about("alice", true))
	t.Check(n.State == "available", "online: true is the state %s", n.State)
	alice.Command("setStatus", walk.M{"online": true}, nil)
	alice.Untold("subscribe", "Alice was not told that Bob has subscribed")
	alice.Command("setStatus", walk.M{"state": "busy"}, nil)
	n = bob.Notice("setStatus", func(n walk.Notice) bool { return n.State == "busy" })
	t.Check(n.UserID == t.users["alice"].UserID && n.Online, "busy is online as well")

	t.Say("Whoever subscribes to a user's status topic gets the present value at once, without any list.")
	topic := "users/" + t.name("alice") + "/status"
	tablet.Subscribe(topic)
	status := walk.Take[walk.Notice](tablet, topic)
	t.Check(status.State == "busy" && status.Online, "the retained status is %s", status.State)

	t.Say("editUser changes customData, for all to see, and privateCustomData, for oneself alone.")
	var me struct{ User walk.User }
	alice.Command("editUser", walk.M{
		"customData": walk.M{"image": "alice-2.png", "mood": "curious"}, "privateCustomData": walk.M{"theme": "dark"},
	}, &me)
	t.Check(me.User.PrivateCustomData["theme"] == "dark", "Alice sees her private data")
	n = bob.Notice("editUser")
	t.Check(n.User.CustomData["mood"] == "curious" && n.User.PrivateCustomData == nil, "Bob sees the public data only")

	t.Say("Invisible is setStatus(false): whoever looks sees her offline.")
	alice.Command("setStatus", walk.M{"online": false}, nil)
	n = bob.Notice("setStatus", about("alice", false))
	t.Check(n.LastSeen > 0, "offline, last seen at %d", n.LastSeen)
	alice.Command("setStatus", walk.M{"online": true}, nil)
	bob.Notice("setStatus", about("alice", true))

	t.Say("Bob has seen enough.")
	bob.Command("unsubscribe", walk.M{"users": []int64{t.users["alice"].UserID}}, nil)
	tablet.Notice("unsubscribe")
	bob.Command("subscribe", walk.M{"users": []int64{t.users["alice"].UserID, t.users["carol"].UserID}}, nil)
	tablet.Notice("subscribe")
	bob.Command("unsubscribeFromAll", nil, nil)
	tablet.Notice("unsubscribe")
	bob.Command("getSubscriptions", nil, &subscriptions)
	t.Check(string(subscriptions.Users) == "[]", "no subscriptions are left")

	t.Say("Which events a phone wants pushed is part of the own record as well; the list is replaced whole.")
	bob.Command("managePushNotifications", walk.M{"events": []string{"sendMessage", "createConversation"}}, &me)
	t.Check(len(me.User.Notifications) == 2, "Bob wants %v", me.User.Notifications)
	bob.Refused("managePushNotifications", walk.M{"events": []string{"typing"}}, "unknown-push-event")
}

func number(id int64) string {
	b, _ := json.Marshal(id) // a number always encodes
	return string(b)
}
