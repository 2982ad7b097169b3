package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// lists are what getMe tells of conversations.
type lists struct {
	User struct {
		ConversationsList, LeaveConversationList, MutedConversations []string
	}
}

func (w *world) lists(tb testing.TB, u user) lists {
	tb.Helper()
	var l lists
	d := w.online(tb, u, 5)
	d.command(tb, "getMe", nil).into(tb, &l)
	d.leave()
	return l
}

func TestJoiningAndLeaving(t *testing.T) {
	// A public conversation is one that people come to and go from by themselves; everybody there can follow that.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		c := w.conversationWith(t, map[string]any{"publicJoin": true, "permissions": map[string]any{"canEdit": false}}, alice, carol)
		here, there := w.online(t, alice, 5), w.online(t, bob, 4)
		seq := int64(1)
		for _, by := range w.callers(t, bob) {
			var joined, left struct{ Conversation conversation }
			by.must(t, &joined, "joinConversation", map[string]any{"uuid": c})
			if got := joined.Conversation; got.LastSeq != seq+1 || len(got.Participants) != 3 || got.Participants[2].Username != bob.Name ||
				got.Participants[2].Permissions != (permissions{CanRead: true, CanWrite: true, CanRemove: true}) || got.Participants[2].JoinedSeq != seq+1 {
				t.Errorf("%s: joined %+v", by.name, got)
			}
			if n := there.notice(t, "conversationAdded"); n.Conversation != c || n.ConversationData == nil {
				t.Errorf("%s: %s", by.name, n.received.payload)
			}
			if l := w.lists(t, bob).User; !slices.Equal(l.ConversationsList, []string{c}) || len(l.LeaveConversationList) != 0 {
				t.Errorf("%s: who takes part has the lists %+v", by.name, l)
			}
			by.must(t, &left, "leaveConversation", map[string]any{"uuid": c})
			if got := left.Conversation; got.LastSeq != seq+2 || len(got.Participants) != 2 {
				t.Errorf("%s: left %+v", by.name, got)
			}
			if n := there.notice(t, "conversationRemoved"); n.Conversation != c {
				t.Errorf("%s: %s", by.name, n.received.payload)
			}
			if l := w.lists(t, bob).User; len(l.ConversationsList) != 0 || !slices.Equal(l.LeaveConversationList, []string{c}) {
				t.Errorf("%s: who left has the lists %+v", by.name, l)
			}
			w.message(t, w.as(t, alice), c, "not for bob")
			for _, d := range []*device{here, there} {
				list := d.hearUpTo(t, c, seq+1, seq+2)
				for n, action := range []string{"joinConversation", "leaveConversation"} {
					ev := list[n]
					if ev.Type != "editConversation" || ev.Action != action || len(ev.Participants) != 1 || ev.Participants[0].UserID != bob.ID ||
						ev.Initiator.UserID != bob.ID || len(ev.ConversationData.Participants) != 3-n {
						t.Errorf("%s: %s hears %s", by.name, d.user.Name, ev.raw)
					}
				}
			}
			here.hearUpTo(t, c, seq+3, seq+3)
			seq += 3
		}
		there.heardAll(t)
	})
}

func TestEditingAConversation(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		for _, by := range w.callers(t, alice) {
			c := w.conversationWith(t, map[string]any{"title": "old", "customData": map[string]any{"a": 1, "b": 2}}, alice, bob)
			here := w.online(t, bob, 5)
			var made struct{ Conversation conversation }
			by.must(t, &made, "editConversation", map[string]any{"uuid": c, "customData": map[string]any{"c": 3}})
			if got := made.Conversation; got.Title != "old" || string(got.CustomData) != `{"c":3}` || got.LastSeq != 2 || got.PublicJoin {
				t.Errorf("%s: customData: %+v", by.name, got)
			}
			by.must(t, &made, "editConversation", map[string]any{
				"uuid": c, "title": "new", "publicJoin": true, "policy": "open", "customData": nil, "permissions": map[string]any{"canWrite": false},
			})
			got := made.Conversation
			if got.Title != "new" || string(got.CustomData) != `{"c":3}` || !got.PublicJoin || got.Policy != "open" || got.Permissions.CanWrite || !got.Permissions.CanRead {
				t.Errorf("%s: the rest: %+v", by.name, got)
			}
			for _, ev := range here.hearUpTo(t, c, 2, 3) {
				if ev.Type != "editConversation" || ev.Action != "editConversation" || ev.ConversationData == nil || len(ev.Participants) != 0 {
					t.Errorf("%s: %s", by.name, ev.raw)
				}
			}
			// Now it is open: bob edits it, and carol, who joins, has the new defaults.
			w.as(t, bob).ok(t, "PATCH", "/v1/conversations/"+c, map[string]any{"title": "bob's"})
			w.as(t, carol).ok(t, "POST", "/v1/conversations/"+c+"/join", nil)
			if p := w.as(t, carol).refused(t, "POST", "/v1/conversations/"+c+"/messages", text("x")); p.Number != 12 {
				t.Errorf("%s: carol writes: %+v", by.name, p)
			}
			here.leave()
		}
	})
}

func TestSeveralOwners(t *testing.T) {
	// Ownership can be shared and handed over, and is never lost.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		permit := func(u user, what map[string]any) map[string]any {
			return map[string]any{"participants": []any{map[string]any{"username": u.Name, "permissions": what}}}
		}
		asAlice, asBob, asCarol := w.as(t, alice), w.as(t, bob), w.as(t, carol)
		c := w.conversation(t, alice, bob, carol)
		path := "/v1/conversations/" + c
		here := w.online(t, carol, 5)
		asAlice.ok(t, "PATCH", path+"/participants", permit(bob, map[string]any{"canManageParticipants": true}))
		asBob.ok(t, "PATCH", path+"/participants", permit(carol, map[string]any{"canEdit": false}))
		for _, p := range []map[string]any{permit(bob, map[string]any{"isOwner": true}), permit(alice, map[string]any{"canWrite": false})} {
			if n := asBob.refused(t, "PATCH", path+"/participants", p).Number; n != 12 {
				t.Errorf("a manager acts as an owner: number %d", n)
			}
		}
		if n := asBob.refused(t, "DELETE", path+"/participants", map[string]any{"participants": refs(alice)}).Number; n != 12 {
			t.Errorf("a manager removes an owner: number %d", n)
		}
		asAlice.ok(t, "PATCH", path+"/participants", permit(bob, map[string]any{"isOwner": true}))
		asAlice.ok(t, "POST", path+"/leave", nil)
		if n := asBob.refused(t, "DELETE", path+"/participants", map[string]any{"participants": refs(bob)}).Number; n != 12 {
			t.Errorf("the last owner takes itself out: number %d", n)
		}
		asBob.ok(t, "DELETE", path+"/participants", map[string]any{"participants": refs(carol)})
		asBob.ok(t, "POST", path+"/leave", nil)
		if n := asCarol.refused(t, "POST", path+"/messages", text("x")).Number; n != 12 {
			t.Errorf("who was removed writes: number %d", n)
		}
		var actions []string
		for _, ev := range here.hearUpTo(t, c, 2, 6) {
			actions = append(actions, ev.Action)
		}
		if want := []string{"editParticipants", "editParticipants", "editParticipants", "leaveConversation", "removeParticipants"}; !slices.Equal(actions, want) {
			t.Errorf("carol hears %v", actions)
		}
	})
}

func TestRemovingAConversationIsTheEndForAll(t *testing.T) {
	// Everybody must learn of it, whether connected or not, and nothing may be had there afterwards.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		for n, by := range w.callers(t, alice) {
			c := w.conversation(t, alice, bob, carol)
			w.as(t, carol).ok(t, "POST", "/v1/conversations/"+c+"/leave", nil)
			away := w.phone(t, bob, lasting(4, fmt.Sprint("away ", n)))
			away.follow(t, 1, "conversations/"+c+"/events")
			away.goodbye(t)
			here, four := w.online(t, bob, 5), w.online(t, bob, 4)
			w.message(t, w.as(t, alice), c, "the last one")
			var none map[string]any
			if by.must(t, &none, "removeConversation", map[string]any{"uuid": c}); len(none) != 0 {
				t.Errorf("%s: removeConversation answers %v", by.name, none)
			}
			for _, d := range []*device{here, four} {
				ev := d.hearUpTo(t, c, 3, 4)[1]
				if ev.Type != "removeConversation" || ev.Action != "removeConversation" || ev.Initiator.UserID != alice.ID || ev.ConversationData != nil {
					t.Errorf("%s: %s", by.name, ev.raw)
				}
				if got := d.notice(t, "conversationRemoved"); got.Conversation != c {
					t.Errorf("%s: %s", by.name, got.received.payload)
				}
				d.leave()
			}
			away = w.phone(t, bob, lasting(4, fmt.Sprint("away ", n)))
			away.want(t, c, 3, 4)
			away.settled(t)
			away.goodbye(t)
			for _, u := range []user{bob, carol} {
				if p := w.as(t, u).refused(t, "GET", "/v1/conversations/"+c, nil); p.Number != 16 {
					t.Errorf("%s: %s gets %+v", by.name, u.Name, p)
				}
			}
			if l := w.lists(t, bob).User; slices.Contains(l.ConversationsList, c) || slices.Contains(l.LeaveConversationList, c) {
				t.Errorf("%s: bob's lists are %+v", by.name, l)
			}
			codes, err := w.connect(t, bob, 5).trySubscribe(t.Context(), 1, "conversations/"+c+"/events")
			if err != nil || codes[0] < 0x80 {
				t.Errorf("%s: subscribing afterwards: %v %v", by.name, codes, err)
			}
			if list := w.log(t, c); len(list) != 4 {
				t.Errorf("%s: the service reads %d events", by.name, len(list))
			}
		}
	})
}

func TestListsOfConversations(t *testing.T) {
	// What is public is found by those who may join it; what is one's own, by oneself; a service sees its tree.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		child := w.account + "-labs"
		w.service.ok(t, "POST", "/v1/accounts", map[string]any{"name": child})
		w.service.ok(t, "POST", "/v1/accounts/"+child+"/applications", map[string]any{"name": "chat"})
		dora := user{Name: "dora@chat." + child, password: "dora's password"}
		w.service.ok(t, "POST", "/v1/users", map[string]any{"username": dora.Name, "password": dora.password})
		var open, all []string
		for n := range 5 {
			open = append(open, w.conversationWith(t, map[string]any{"publicJoin": true, "title": fmt.Sprint(n)}, alice))
		}
		hers := w.conversationWith(t, map[string]any{"publicJoin": true}, dora)
		private := w.conversation(t, alice, bob)
		gone := w.conversationWith(t, map[string]any{"publicJoin": true}, alice, bob)
		w.as(t, alice).ok(t, "DELETE", "/v1/conversations/"+gone, nil)
		all = append(append(append(all, open...), hers), private)

		for _, tt := range []struct {
			who  user
			want []string
		}{{bob, open}, {alice, open}, {dora, append(slices.Clone(open), hers)}} {
			for _, by := range w.callers(t, tt.who) {
				var got []string
				for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
					params := map[string]any{"limit": 2}
					if cursor != "" {
						params["cursor"] = cursor
					}
					var page struct {
						UUIDs      []string
						NextCursor string
					}
					by.must(t, &page, "getPublicConversations", params)
					got, cursor = append(got, page.UUIDs...), page.NextCursor
					if len(page.UUIDs) > 2 || pages > 9 {
						t.Fatalf("%s: a page of %v", by.name, page)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s finds %v over %s, want %v", tt.who.Name, got, by.name, tt.want)
				}
			}
		}
		for _, tt := range []struct {
			by   api
			want []string
		}{{w.as(t, bob), []string{private}}, {w.service, all}, {w.as(t, dora), []string{hers}}} {
			var got []string
			for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
				var page struct {
					Conversations []conversation
					NextCursor    string
				}
				tt.by.ok(t, "GET", "/v1/conversations?limit=3&cursor="+cursor, nil).into(t, &page)
				for _, c := range page.Conversations {
					got = append(got, c.UUID)
				}
				if cursor = page.NextCursor; len(page.Conversations) > 3 || pages > 9 {
					t.Fatalf("a page of %v", page)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("listed %v, want %v", got, tt.want)
			}
		}
	})
}

func TestMutingIsSeenByOneself(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		c := w.conversation(t, alice, bob)
		here := w.online(t, alice, 5)
		for _, by := range w.callers(t, bob) {
			for _, muted := range []bool{true, true, false} {
				var got struct{ Conversation conversation }
				by.must(t, &got, "muteConversation", map[string]any{"uuid": c, "muted": muted})
				if got.Conversation.LastSeq != 1 {
					t.Errorf("%s: %+v", by.name, got.Conversation)
				}
				if l := w.lists(t, bob).User.MutedConversations; slices.Contains(l, c) != muted {
					t.Errorf("%s: muted is %v, want %v", by.name, l, muted)
				}
			}
		}
		if l := w.lists(t, alice).User.MutedConversations; len(l) != 0 {
			t.Errorf("alice's are %v", l)
		}
		w.message(t, w.as(t, alice), c, "and nobody was told")
		here.hearUpTo(t, c, 2, 2)
	})
}

func TestRevokingTheRightToReadEndsDelivery(t *testing.T) {
	// Taking somebody's right to read away is done for a reason, and must work at once, on all of its devices; giving it
	// back must not bring what was said meanwhile.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		as := w.as(t, alice)
		c, other := w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		reading := func(may bool) {
			as.ok(t, "PATCH", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []any{
				map[string]any{"username": bob.Name, "permissions": map[string]any{"canRead": may}},
			}})
		}
		live := w.online(t, bob, version)
		here, away := w.phone(t, bob, lasting(version, "here")), w.phone(t, bob, lasting(version, "away"))
		slow := w.phone(t, bob, lasting(5, "slow", window(1)))
		for _, p := range []*phone{here, away, slow} {
			p.follow(t, 1, allEvents)
		}
		away.goodbye(t)
		w.sayVia(t, as, c, 2) // 2, 3
		slow.hold(t, c, 2, 2)
		reading(false) // 4
		w.sayVia(t, as, c, 2)
		w.sayVia(t, as, other, 1)
		here.want(t, c, 2, 4)
		here.want(t, other, 2, 2)
		here.settled(t)
		live.hearUpTo(t, c, 2, 4)
		live.hearUpTo(t, other, 2, 2)
		// What was not sent before is withheld, with the event that says so.
		slow.ackAll(t)
		slow.want(t, other, 2, 2)
		slow.settled(t)
		slow.goodbye(t)
		away = w.phone(t, bob, lasting(version, "away"))
		away.want(t, other, 2, 2)
		away.settled(t)
		away.goodbye(t)
		for _, by := range w.callers(t, bob) {
			if _, refused := by.run(t, "retransmitEvents", map[string]any{"conversation": c, "from": 1, "to": 2}); refused == nil || refused.Number != 12 {
				t.Errorf("reading over %s: %+v", by.name, refused)
			}
		}
		if codes, err := live.trySubscribe(t.Context(), 1, "conversations/"+c+"/events"); err != nil || codes[0] < 0x80 {
			t.Errorf("subscribing: %v %v", codes, err)
		}

		reading(true) // 7
		w.sayVia(t, as, c, 1)
		here.want(t, c, 7, 8)
		live.hearUpTo(t, c, 7, 8)
		away = w.phone(t, bob, lasting(version, "away"))
		away.want(t, c, 2, 4)
		away.want(t, c, 7, 8)
		away.settled(t)
		var page struct{ Events []event }
		w.as(t, bob).ok(t, "GET", "/v1/conversations/"+c+"/events?from=1&to=8", nil).into(t, &page)
		if len(page.Events) != 8 {
			t.Errorf("bob reads %d events", len(page.Events))
		}
		// Leaving is not a way around it.
		reading(false) // 9
		w.sayVia(t, as, c, 1)
		w.as(t, bob).ok(t, "POST", "/v1/conversations/"+c+"/leave", nil)
		if p := w.as(t, bob).refused(t, "GET", "/v1/conversations/"+c+"/events?from=1&to=10", nil); p.Number != 24 {
			t.Errorf("after leaving: %+v", p)
		}
		w.as(t, bob).ok(t, "GET", "/v1/conversations/"+c+"/events?from=1&to=9", nil)
	})
}

func TestRetransmissionShowsWhatOneMaySee(t *testing.T) {
	// The three ways to ask for a page, and the two reasons to be shown less: uber, and having left.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		as := w.as(t, alice)
		plain, uber := w.conversation(t, alice), w.conversationWith(t, map[string]any{"uber": true}, alice)
		for _, c := range []string{plain, uber} {
			w.sayVia(t, as, c, 2)          // 2, 3
			w.members(t, "POST", c, bob)   // 4
			w.sayVia(t, as, c, 1)          // 5
			w.members(t, "DELETE", c, bob) // 6
			w.sayVia(t, as, c, 1)          // 7
		}
		seqs := func(by caller, c string, params map[string]any) string {
			t.Helper()
			var page struct {
				Events   []event
				From, To int64
			}
			params["conversation"] = c
			by.must(t, &page, "retransmitEvents", params)
			var list []string
			for _, ev := range page.Events {
				list = append(list, fmt.Sprint(ev.Seq))
			}
			return fmt.Sprintf("%d-%d: %s", page.From, page.To, strings.Join(list, " "))
		}
		type params = map[string]any
		ask := func(state string, want map[string][2]string) {
			t.Helper()
			for _, by := range w.callers(t, bob) {
				for name, p := range map[string]params{
					"from to": {"from": 1, "to": 6}, "from count": {"from": 3, "count": 2}, "to count": {"to": 5, "count": 2}, "all": {"from": 1, "count": 100},
				} {
					for n, c := range []string{plain, uber} {
						if got := seqs(by, c, p); got != want[name][n] {
							t.Errorf("%s, %s over %s, conversation %d: %s, want %s", state, name, by.name, n, got, want[name][n])
						}
					}
				}
				for _, c := range []string{plain, uber} {
					if _, refused := by.run(t, "retransmitEvents", params{"conversation": c, "from": 1, "to": 100}); refused == nil || refused.Number != 24 {
						t.Errorf("%s: beyond the last: %+v", by.name, refused)
					}
				}
			}
		}
		ask("left", map[string][2]string{
			"from to": {"1-6: 1 2 3 4 5 6", "1-6: 4 5 6"}, "from count": {"3-4: 3 4", "3-4: 4"}, "to count": {"4-5: 4 5", "4-5: 4 5"},
			"all": {"1-6: 1 2 3 4 5 6", "1-6: 4 5 6"},
		})
		for _, c := range []string{plain, uber} {
			w.members(t, "POST", c, bob) // 8
		}
		ask("back", map[string][2]string{
			"from to": {"1-6: 1 2 3 4 5 6", "1-6: 4 5 6"}, "from count": {"3-4: 3 4", "3-4: 4"}, "to count": {"4-5: 4 5", "4-5: 4 5"},
			"all": {"1-8: 1 2 3 4 5 6 7 8", "1-8: 4 5 6 8"},
		})
	})
}

func TestAPageOf101IsTolerated(t *testing.T) {
	// Clients of old ask for the last event and the hundred before it.
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		c := w.conversation(t, alice)
		w.sayVia(t, w.as(t, alice), c, 101)
		for _, by := range w.callers(t, alice) {
			var page struct{ Events []event }
			by.must(t, &page, "retransmitEvents", map[string]any{"conversation": c, "from": 2, "to": 102})
			if len(page.Events) != 101 || page.Events[0].Seq != 2 {
				t.Errorf("%s: %d events", by.name, len(page.Events))
			}
			if _, refused := by.run(t, "retransmitEvents", map[string]any{"conversation": c, "from": 1, "to": 102}); refused == nil || refused.Number != 22 {
				t.Errorf("%s: 102 numbers: %+v", by.name, refused)
			}
		}
	})
}

func TestCreatingAtOnceMakesOneConversation(t *testing.T) {
	// Two who open a chat with each other at the same moment must meet in it, whatever they connect by.
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		for _, kind := range []string{"direct", "distinct"} {
			var mu sync.Mutex
			ids := make(map[string]int) // by uuid: how many were told that it is new
			var all sync.WaitGroup
			for n, u := range []user{users[0], users[1], users[0], users[1]} {
				for _, by := range w.callers(t, u) {
					with := users[1-n%2]
					all.Go(func() {
						var made struct {
							Conversation conversation
							Existing     bool
						}
						result, refused := by.run(t, "createConversation", map[string]any{kind: true, "participants": refs(with)})
						if refused != nil {
							t.Errorf("%s: %+v", by.name, refused)
							return
						}
						mustDecode(t, result, &made)
						mu.Lock()
						defer mu.Unlock()
						if ids[made.Conversation.UUID] += 0; !made.Existing {
							ids[made.Conversation.UUID]++
						}
					})
				}
			}
			all.Wait()
			if len(ids) != 1 {
				t.Fatalf("%s: %v", kind, ids)
			}
			for id, fresh := range ids {
				if fresh != 1 {
					t.Errorf("%s: %d were told that it is new", kind, fresh)
				}
				if kind == "direct" {
					continue
				}
				// It ceases to be the one of its participants with any change of them.
				w.service.ok(t, "PATCH", "/v1/conversations/"+id+"/participants", map[string]any{"participants": []any{
					map[string]any{"username": users[1].Name, "permissions": map[string]any{"canEdit": false}},
				}})
				if next := w.conversationWith(t, map[string]any{"distinct": true}, users...); next == id {
					t.Error("it is distinct all the same")
				}
			}
		}
	})
}

func TestStormOfComingAndGoingKeepsTheLogWhole(t *testing.T) {
	// Joining and leaving change the state under everybody's messages: each must have its place, and nobody may get stuck.
	inWorlds(t, func(t *testing.T, w *world) {
		const people, rounds = 4, 6
		alice := w.user(t, "alice")
		c := w.conversationWith(t, map[string]any{"publicJoin": true}, alice)
		here := w.online(t, alice, 5)
		var all sync.WaitGroup
		for n := range people {
			u := w.user(t, fmt.Sprint("guest", n))
			d := w.online(t, u, []byte{4, 5}[n%2])
			all.Go(func() {
				for range rounds {
					for _, command := range []string{"joinConversation", "leaveConversation"} {
						r, err := d.tryCommand(t.Context(), command, map[string]any{"uuid": c})
						if err != nil || r.Error != nil {
							t.Errorf("%s: %s: %v %+v", u.Name, command, err, r.Error)
						}
						if command == "joinConversation" {
							if _, err := d.trySay(t.Context(), c, text("hello")); err != nil {
								t.Errorf("%s: %v", u.Name, err)
							}
						}
					}
				}
			})
		}
		all.Wait()
		const last = 1 + people*rounds*3
		if n := len(w.log(t, c)); n != last {
			t.Errorf("%d events, want %d", n, last)
		}
		here.hearUpTo(t, c, 2, last)
	})
}
