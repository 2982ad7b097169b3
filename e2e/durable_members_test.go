package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/e2e/chaos"
)

// members adds or removes participants as the service.
func (w *world) members(tb testing.TB, method, conversation string, users ...user) {
	tb.Helper()
	w.service.ok(tb, method, "/v1/conversations/"+conversation+"/participants", map[string]any{"participants": refs(users...)})
}

// take reads events until the last one has come, and gives the numbers per conversation.
func (p *phone) take(tb testing.TB, n int) map[string][]int64 {
	tb.Helper()
	got := make(map[string][]int64)
	for range n {
		ev := p.event(tb)
		got[ev.Conversation] = append(got[ev.Conversation], ev.Seq)
		p.ackAll(tb)
	}
	return got
}

func same(tb testing.TB, what string, got, want []int64) {
	tb.Helper()
	if string(mustJSON(tb, got)) != string(mustJSON(tb, want)) {
		tb.Errorf("%s: events %v, want %v", what, got, want)
	}
}

func TestMembershipChangesWhileAwayDecideWhatIsDue(t *testing.T) {
	// Who is removed while offline must not read on when it comes back, and must be told; who is added must find the
	// conversation; in both cases exactly from and up to the event that says so.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		as := w.as(t, alice)
		say := func(c string, n int) { w.sayVia(t, as, c, n) }
		kept, removed, back := w.conversation(t, alice, bob), w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		uber := w.conversationWith(t, map[string]any{"uber": true}, alice, bob)
		added := w.conversation(t, alice)
		former := w.conversation(t, alice, bob)
		w.members(t, "DELETE", former, bob)

		p := w.phone(t, bob, lasting(version, "phone"))
		p.follow(t, 1, allEvents)
		p.goodbye(t)

		say(kept, 2) // 2, 3
		say(removed, 2)
		w.members(t, "DELETE", removed, bob) // 4
		say(removed, 3)
		say(back, 1)                      // 2
		w.members(t, "DELETE", back, bob) // 3
		say(back, 2)                      // 4, 5
		w.members(t, "POST", back, bob)   // 6
		say(back, 1)                      // 7
		say(uber, 1)
		w.members(t, "DELETE", uber, bob) // 3
		say(uber, 2)
		w.members(t, "POST", uber, bob) // 6
		say(uber, 1)
		w.members(t, "DELETE", uber, bob) // 8
		say(uber, 1)
		w.members(t, "POST", uber, bob) // 10
		say(added, 2)
		w.members(t, "POST", added, bob) // 4
		say(added, 1)
		created := w.conversation(t, alice, bob)
		say(former, 1)

		want := map[string][]int64{
			kept: {2, 3}, removed: {2, 3, 4}, back: {2, 3, 6, 7}, uber: {2, 3, 6, 7, 8, 10},
			added: {4, 5}, created: {1},
		}
		n := 0
		for _, seqs := range want {
			n += len(seqs)
		}
		p = w.phone(t, bob, lasting(otherVersion(version), "phone"))
		got := p.take(t, n)
		for name, c := range map[string]string{
			"kept": kept, "removed": removed, "removed and added again": back, "uber": uber, "added": added, "created": created, "removed before": former,
		} {
			same(t, name, got[c], want[c])
		}
		p.settled(t)
		// And from here on live, in those that bob is in.
		say(removed, 1)
		say(former, 1)
		say(back, 1)
		p.want(t, back, 8, 8)
		p.goodbye(t)
		p = w.phone(t, bob, lasting(version, "phone"))
		say(kept, 1)
		p.want(t, kept, 4, 4)
		p.settled(t)
	})
}

func TestRemovedConversationEndsWithTheEventThatSaysSo(t *testing.T) {
	// Who was away when a conversation was removed must learn what was said before and that it is over; and then nothing.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		c, kept := w.conversation(t, users...), w.conversation(t, users...)
		as := w.as(t, users[0])
		here, away := w.phone(t, users[1], lasting(version, "here")), w.phone(t, users[1], lasting(version, "away"))
		here.follow(t, 1, allEvents)
		away.follow(t, 1, allEvents)
		away.goodbye(t)
		w.sayVia(t, as, c, 2) // 2, 3
		w.service.ok(t, "DELETE", "/v1/conversations/"+c, nil)
		as.refused(t, "POST", "/v1/conversations/"+c+"/messages", text("too late"))
		w.sayVia(t, as, kept, 1)
		here.want(t, c, 2, 4)
		here.want(t, kept, 2, 2)
		here.settled(t)
		away = w.phone(t, users[1], lasting(otherVersion(version), "away"))
		got := away.take(t, 4)
		same(t, "removed", got[c], []int64{2, 3, 4})
		same(t, "kept", got[kept], []int64{2})
		away.settled(t)
		away.goodbye(t)
		away = w.phone(t, users[1], lasting(version, "away"))
		away.settled(t)
		w.sayVia(t, as, kept, 1)
		away.want(t, kept, 3, 3)
	})
}

func TestLosingTheRightToReadEndsDelivery(t *testing.T) {
	// Taking somebody's right to read away is done for a reason, and must work on what has not been delivered yet.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		c, other := w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		as := w.as(t, alice)
		away := w.phone(t, bob, lasting(version, "away"))
		away.follow(t, 1, allEvents)
		away.goodbye(t)
		p := w.phone(t, bob, lasting(version, "here"))
		p.follow(t, 1, allEvents)
		w.sayVia(t, as, c, 1)
		p.want(t, c, 2, 2)
		w.members(t, "DELETE", c, bob)
		w.service.ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []map[string]any{
			{"username": bob.Name, "permissions": map[string]any{"canRead": false}},
		}})
		w.sayVia(t, as, c, 2)
		w.sayVia(t, as, other, 1)
		p.want(t, c, 3, 3)
		p.want(t, other, 2, 2)
		p.settled(t)
		away = w.phone(t, bob, lasting(version, "away"))
		away.want(t, other, 2, 2)
		away.settled(t)
	})
}

func TestDeletedUsersAndEndedTokensEndSessionsAtOnce(t *testing.T) {
	// Who is locked out must be out now: minutes later is too late.
	onBothStores(t, func(t *testing.T, s store) {
		w := newWorld(t, start(t, s.empty(t), func(c *configs.Config) { c.Login.AccessTTL = 3 * time.Second }))
		users := w.users(t, "alice", "bob", "carol")
		c := w.conversation(t, users...)
		var sessions []*phone
		token := users[2]
		token.password = w.token(t, users[2])
		for _, version := range []byte{4, 5} {
			device := fmt.Sprint("phone-", version)
			sessions = append(sessions, w.phone(t, users[1], lasting(version, device)), w.phone(t, token, lasting(version, device)))
		}
		for _, p := range sessions {
			p.follow(t, 1, allEvents)
		}
		w.service.ok(t, "DELETE", "/v1/users/"+users[1].Name, nil)
		for _, p := range sessions {
			for ended := false; !ended; {
				p.SetReadDeadline(time.Now().Add(patience))
				got, err := p.Read()
				ended = err != nil
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("a session has not ended")
				}
				if got.Kind == chaos.KindDisconnect && got.Reason != 0x87 {
					t.Errorf("DISCONNECT 0x%02x", got.Reason)
				}
			}
		}
		w.sayVia(t, w.as(t, users[0]), c, 1)
		for _, u := range []user{users[1], token} {
			if w.phoneRefused(t, u, lasting(5, "phone-5")) == 0 {
				t.Errorf("%s still logs in", u.Name)
			}
		}
		// The session of who had the token is still there for who knows the password.
		p := w.phone(t, users[2], lasting(5, "phone-5"))
		p.want(t, c, 2, 2)
	})
}

// phoneRefused connects a phone that must be refused, and gives the reason.
func (g *gateway) phoneRefused(tb testing.TB, u user, l chaos.Login) byte {
	tb.Helper()
	l.User, l.Password = u.Name, u.password
	client, err := chaos.Dial(tb.Context(), g.addrs.MQTT, l)
	if err == nil {
		client.Cut()
		return 0
	}
	var refused *chaos.RefusedError
	if !errors.As(err, &refused) {
		tb.Fatal(err)
	}
	return refused.Reason
}
