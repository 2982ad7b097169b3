package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/parley-im/parley/examples/walk"
)

// applicationSettings is what the operator and the backend do once: account, application, API key, users.
func (t *story) applicationSettings() {
	t.Section("Backend server and application settings", `
The operator makes an account with an application, and an API key for the customer's backend. The backend creates users; clients
never see the API key. GET /v1/users is the directory: a client's backend need not keep a list of users of its own.`)

	operator := t.Operator()
	operator.Call("POST", "/v1/accounts", walk.M{"name": t.Account}, nil)
	operator.Call("POST", "/v1/accounts/"+t.Account+"/applications", walk.M{"name": "messaging"}, nil)
	var service struct{ Key string }
	operator.Call("POST", "/v1/services", walk.M{"account": t.Account, "name": "Backend"}, &service)
	t.backend = t.Backend("backend", service.Key)

	for _, u := range []struct{ short, display string }{{"alice", "Alice"}, {"bob", "Bob"}, {"carol", "Carol"}} {
		var made struct{ User walk.User }
		t.backend.Call("POST", "/v1/users", walk.M{
			"username": t.name(u.short), "displayName": u.display, "password": u.short + "'s password",
			"customData": walk.M{"image": u.short + ".png"},
		}, &made)
		t.Check(made.User.UserID > 0 && made.User.Username == t.name(u.short), "user %d is %s", made.User.UserID, made.User.Username)
		t.users[u.short] = made.User
	}

	var directory struct{ Users []walk.User }
	t.backend.Call("GET", "/v1/users?application=messaging&account="+t.Account, nil, &directory)
	t.Check(len(directory.Users) == 3, "the directory has %d users", len(directory.Users))

	t.Say("The backend also welcomes Alice and Bob, so that there is a conversation to retrieve below.")
	var made struct{ Conversation walk.Conversation }
	t.backend.Call("POST", "/v1/conversations", walk.M{
		"title": "Welcome", "participants": []walk.M{t.ref("alice"), t.ref("bob")},
	}, &made)
	t.welcome = made.Conversation.UUID
	var sent struct{ Message walk.Message }
	t.backend.Call("POST", "/v1/conversations/"+t.welcome+"/messages", walk.M{"text": "Welcome to messaging!"}, &sent)
	t.Check(sent.Message.Seq == 2 && sent.Message.Sender.Service == "Backend",
		"event 2 is a message of the service %s (event 1 was the creation)", sent.Message.Sender.Service)
}

// connectAndLogin shows the ways to log in: password, access token, refreshed token, one-time key.
func (t *story) connectAndLogin() {
	t.Section("Connect and log in", `
There is no separate login call on MQTT: CONNECT carries the full user name and a password or an access token, and the CONNACK
is the login result.`)

	t.Refuse(walk.Login{Name: "stranger", Username: t.name("alice"), Password: "guess", Version: 5}, 0x87)

	t.Say("Alice logs in with her password.")
	t.alice = t.Connect(walk.Login{Name: "alice", Username: t.name("alice"), Password: "alice's password", Version: 5})

	t.Say("Bob's app logs in over HTTP, keeps the tokens instead of the password, and connects with the access token.")
	app := t.Backend("bob", "")
	app.Refused("POST", "/v1/login", walk.M{"username": t.name("bob"), "password": "guess"}, "not-authenticated")
	var tokens walk.Tokens
	app.Call("POST", "/v1/login", walk.M{"username": t.name("bob"), "password": "bob's password"}, &tokens)
	t.Check(tokens.User.DisplayName == "Bob", "the answer has the display name: %s", tokens.User.DisplayName)
	const hour = 60 * 60 * 1000
	t.Check(tokens.RefreshExpires-tokens.AccessExpires > 27*24*hour, "the refresh token lives weeks longer than the access token")
	t.bob = t.Connect(walk.Login{Name: "bob", Username: t.name("bob"), Password: tokens.AccessToken})

	t.Say("An access token that runs out is replaced by means of the refresh token, which is good for one use.")
	var fresh walk.Tokens
	app.Call("POST", "/v1/login/refresh", walk.M{"refreshToken": tokens.RefreshToken}, &fresh)
	t.Check(fresh.AccessToken != tokens.AccessToken && fresh.RefreshToken != tokens.RefreshToken, "both tokens are new")
	t.tablet = t.Connect(walk.Login{Name: "tablet", Username: t.name("bob"), Password: fresh.AccessToken, Version: 5})

	t.Say("Who uses a refresh token twice is not to be trusted: all tokens of that login are revoked.")
	var other, next walk.Tokens
	app.Call("POST", "/v1/login", walk.M{"username": t.name("bob"), "password": "bob's password"}, &other)
	app.Call("POST", "/v1/login/refresh", walk.M{"refreshToken": other.RefreshToken}, &next)
	app.Refused("POST", "/v1/login/refresh", walk.M{"refreshToken": other.RefreshToken}, "not-authenticated")
	app.Refused("POST", "/v1/login/refresh", walk.M{"refreshToken": next.RefreshToken}, "not-authenticated")
	t.Refuse(walk.Login{Name: "thief", Username: t.name("bob"), Password: next.AccessToken}, 5)

	t.oneTimeKey()
}

// oneTimeKey logs in with neither password nor token: the backend vouches for the user.
func (t *story) oneTimeKey() {
	t.Say("Carol logs in with a one-time key: her app has no password; the backend signs the key with her one-time secret.")
	app := t.Backend("carol", "")
	var key struct {
		Key     string
		Expires int64
	}
	app.Call("POST", "/v1/login/one-time-keys", walk.M{"username": t.name("carol")}, &key)
	var secret struct{ Secret string }
	t.backend.Call("GET", "/v1/users/"+t.name("carol")+"/one-time-secret", nil, &secret)
	mac := hmac.New(sha256.New, []byte(secret.Secret))
	mac.Write([]byte(key.Key))
	answer := walk.M{"username": t.name("carol"), "oneTimeKey": key.Key, "hash": hex.EncodeToString(mac.Sum(nil))}
	var tokens walk.Tokens
	app.Call("POST", "/v1/login", answer, &tokens)
	t.Check(tokens.User.Username == t.name("carol"), "the key opens Carol's account")
	app.Refused("POST", "/v1/login", answer, "not-authenticated")
	t.Backend("carol", tokens.AccessToken).Refused("GET", "/v1/users/"+t.name("carol")+"/one-time-secret", nil, "access-denied")
}

// initialize is what a client does after each login: listeners, own record, conversations, their participants.
func (t *story) initialize() {
	t.Section("Initialize", `
Listeners are subscriptions: the events and signals of all of one's conversations, one's inbox, and the replies to one's commands.
They come first, so that nothing is missed between asking and listening.`)

	t.alice.Listen()
	t.bob.Listen()
	t.tablet.Subscribe("users/"+t.name("bob")+"/inbox", "users/"+t.name("bob")+"/replies/#")

	t.Say("getMe gives the own record, with the list of conversations.")
	var me struct{ User walk.User }
	t.alice.Command("getMe", nil, &me)
	t.Check(me.User.UserID == t.users["alice"].UserID, "Alice is user %d", me.User.UserID)
	t.Check(slices.Contains(me.User.ConversationsList, t.welcome), "her conversationsList has the one that the backend made")

	t.Say("getConversations gives up to 30 of them at once.")
	var found struct{ Conversations []walk.Conversation }
	t.alice.Command("getConversations", walk.M{"uuids": me.User.ConversationsList}, &found)
	t.Check(len(found.Conversations) == 1 && found.Conversations[0].Title == "Welcome", "that is %q", found.Conversations[0].Title)

	t.Say("getUsers gives up to 50 users, by number or by name; Bob, with 3.1.1, reads the reply on his replies topic.")
	var ids []int64
	for _, p := range found.Conversations[0].Participants {
		ids = append(ids, p.UserID)
	}
	var users struct{ Users []walk.User }
	t.bob.Command("getUsers", walk.M{"userIds": ids}, &users)
	t.Check(len(users.Users) == 2, "the participants are %s and %s", users.Users[0].DisplayName, users.Users[1].DisplayName)
	var one struct{ User walk.User }
	t.bob.Command("getUser", walk.M{"username": t.name("alice")}, &one)
	t.Check(one.User.CustomData["image"] == "alice.png" && one.User.ConversationsList == nil,
		"everybody sees Alice's customData, and nobody else her list of conversations")
	t.bob.Refused("getUser", walk.M{"username": t.name("nobody")}, "user-not-found")
}
