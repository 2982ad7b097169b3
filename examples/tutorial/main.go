// Command tutorial is a messenger client from the first login to the last event, section by section: a backend makes the users,
// they log in, find each other, talk in a chat, a direct conversation and a channel, change and leave them, and fetch what they
// missed. It follows the tutorial that clients of Voximplant's messaging start with; docs/coming-from/voximplant.md has a table
// of all methods and events.
//
// Start a gateway, and play it there (in an account of its own, which it leaves behind):
//
//	PARLEY_ADMIN_KEY=secret bin/parley serve
//	PARLEY_ADMIN_KEY=secret go run ./examples/tutorial
//
// Each topic and each JSON text that goes over the wire is printed. ▶ is sent, ◀ is received, and ✓ is a claim that was checked
// against an answer: if one of them does not hold, the program says so and fails. It uses nothing of Parley's own: Alice has one
// of the usual libraries for MQTT 5, Bob one for MQTT 3.1.1, the backend plain HTTP.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/parley-im/parley/examples/walk"
)

func main() {
	if err := walk.Run(context.Background(), os.Args[1:], os.Stdout, "tutorial", tell); err != nil {
		fmt.Fprintln(os.Stderr, "tutorial:", err)
		os.Exit(1)
	}
}

// story is what one section hands to the next.
type story struct {
	*walk.Stage
	// backend is the customer's server program, which holds the API key.
	backend *walk.Backend
	// users are the directory's records by short name.
	users map[string]walk.User
	// alice speaks MQTT 5, bob 3.1.1; tablet is Bob's second device.
	alice, bob, tablet *walk.Client
	// The conversations: one that the backend made, and those of the section on creating.
	welcome, chat, direct, channel string
	// Messages of the chat: the first was edited, the second removed.
	edited, removed walk.Message
}

// tell is the whole tutorial, in order.
func tell(s *walk.Stage) {
	t := &story{Stage: s, users: make(map[string]walk.User)}
	t.applicationSettings()
	t.connectAndLogin()
	t.initialize()
	t.presence()
	t.retrieveConversations()
	t.createConversations()
	t.manageConversations()
	t.managePermissions()
	t.manageParticipants()
	t.sendAndReceive()
	t.typingAndReading()
	t.editAndRemove()
	t.retransmit()
	t.allEvents()
}

// name gives the full name of a user in the account of this run.
func (t *story) name(short string) string { return short + "@messaging." + t.Account }

// ref names a user as a participant, by number, as the web client of the tutorial does.
func (t *story) ref(short string) walk.M { return walk.M{"userId": t.users[short].UserID} }

// with is ref with permissions.
func (t *story) with(short string, permissions walk.M) walk.M {
	ref := t.ref(short)
	ref["permissions"] = permissions
	return ref
}

// both takes the next event of the conversation at Alice and at Bob.
func (t *story) both(conversation, kind string) (alice, bob walk.Event) {
	return t.alice.Event(conversation, kind), t.bob.Event(conversation, kind)
}
