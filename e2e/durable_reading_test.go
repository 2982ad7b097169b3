package e2e_test

import (
	"testing"

	"github.com/parley-im/parley/e2e/chaos"
)

// reading says whether a user may read a conversation.
func (w *world) reading(tb testing.TB, conversation string, u user, may bool) {
	tb.Helper()
	w.service.ok(tb, "PATCH", "/v1/conversations/"+conversation+"/participants", map[string]any{"participants": []any{
		map[string]any{"username": u.Name, "permissions": map[string]any{"canRead": may}},
	}})
}

func numbers(from, to int64, more ...int64) (list []int64) {
	for ; from <= to; from++ {
		list = append(list, from)
	}
	return append(list, more...)
}

// oneByOne is want with an acknowledgement for each event, for those who are sent few at a time.
func (p *phone) oneByOne(tb testing.TB, conversation string, from, to int64) {
	tb.Helper()
	for ; from <= to; from++ {
		p.want(tb, conversation, from, from)
	}
}

func TestDeliveryGoesOnWhereItStoodWhenTheRightToReadComesBack(t *testing.T) {
	// What a device was entitled to before it lost the right is owed to it, wherever it was meanwhile: connected and slow, taken
	// over, away, away at the loss only, or at the return only. What was said meanwhile is owed to none.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		as := w.as(t, alice)
		c, other := w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		room := map[byte]int64{4: 64, 5: 2}[version] // unacknowledged at a time
		const last = 71
		device := func(name string) *phone { return w.phone(t, bob, lasting(version, name, window(2))) }
		live := w.phone(t, bob, chaos.Login{Version: version, Device: "live", Clean: true, Window: 2})
		slow, taken, gone := device("slow"), device("taken over"), device("gone")
		late, back, away := device("late"), device("back"), device("away")
		for _, p := range []*phone{live, slow, taken, gone, late, back, away} {
			p.follow(t, 1, allEvents)
		}
		for _, p := range []*phone{late, back, away} {
			p.goodbye(t)
		}
		w.sayVia(t, as, c, last-1)
		for _, p := range []*phone{live, slow, taken, gone} {
			p.hold(t, c, 2, 1+room)
		}
		back = device("back")
		back.hold(t, c, 2, 1+room)

		w.reading(t, c, bob, false) // 72
		w.sayVia(t, as, c, 2)       // 73, 74
		w.sayVia(t, as, other, 1)   // 2
		for _, p := range []*phone{live, slow, back} {
			p.ackAll(t)
			p.want(t, other, 2, 2)
			p.settled(t)
		}
		gone.Cut()
		for _, p := range []**phone{&taken, &late} {
			*p = device(map[**phone]string{&taken: "taken over", &late: "late"}[p])
			(*p).want(t, other, 2, 2)
			(*p).settled(t)
		}
		back.goodbye(t)
		w.reading(t, c, bob, true) // 75
		w.sayVia(t, as, c, 1)      // 76
		again := map[string]int64{"back": 2 + room, "gone": 2, "away": 2}
		connected := map[*phone]int64{live: 2 + room, slow: 2 + room, taken: 2, late: 2}
		for name, from := range again {
			p := w.phone(t, bob, lasting(otherVersion(version), name))
			if name != "back" { // in turns with the other conversation
				got := p.take(t, last+3)
				same(t, name, got[other], []int64{2})
				same(t, name, got[c], numbers(from, last+1, last+4, last+5))
			} else {
				p.want(t, c, from, last+1)
				p.want(t, c, last+4, last+5)
			}
			p.settled(t)
			p.goodbye(t)
		}
		for p, from := range connected {
			p.oneByOne(t, c, from, last+1)
			p.oneByOne(t, c, last+4, last+5)
			p.settled(t)
			p.goodbye(t)
		}
		// All of it was acknowledged.
		w.sayVia(t, as, c, 1) // 77
		for _, name := range []string{"slow", "taken over", "late", "back", "gone", "away"} {
			p := device(name)
			p.want(t, c, last+6, last+6)
			p.settled(t)
		}
	})
}

func TestWhoIsRemovedWithoutTheRightToReadGetsWhatItWasOwed(t *testing.T) {
	// Removed or not, up to the loss of the right it was entitled to all, whether it is connected or comes back. And who is added
	// again without the right gets nothing of before until it has it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		as := w.as(t, alice)
		c, other := w.conversation(t, alice, bob), w.conversation(t, alice, bob)
		room := map[byte]int64{4: 64, 5: 2}[version]
		const last = 71
		device := func(name string) *phone { return w.phone(t, bob, lasting(version, name, window(2))) }
		here, away := device("here"), device("away")
		for _, p := range []*phone{here, away} {
			p.follow(t, 1, allEvents)
		}
		away.goodbye(t)
		w.sayVia(t, as, c, last-1)
		here.hold(t, c, 2, 1+room)
		w.reading(t, c, bob, false)    // 72
		w.sayVia(t, as, c, 1)          // 73
		w.members(t, "DELETE", c, bob) // 74
		away = device("away")
		here.ackAll(t)
		here.oneByOne(t, c, 2+room, last+1)
		away.oneByOne(t, c, 2, last+1)

		w.service.ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []any{map[string]any{"username": bob.Name}}}) // 75
		for _, p := range []*phone{here, away} {
			p.want(t, c, last+4, last+4)
		}
		w.sayVia(t, as, c, last-1) // 76 to 145
		for _, p := range []*phone{here, away} {
			p.hold(t, c, last+5, last+4+room)
		}
		w.members(t, "DELETE", c, bob) // 146
		w.service.ok(t, "POST", "/v1/conversations/"+c+"/participants", map[string]any{"participants": []any{
			map[string]any{"username": bob.Name, "permissions": map[string]any{"canRead": false}},
		}}) // 147
		w.sayVia(t, as, c, 1) // 148
		w.sayVia(t, as, other, 1)
		away = device("away")
		away.want(t, other, 2, 2)
		away.settled(t)
		here.ackAll(t)
		here.want(t, other, 2, 2)
		here.settled(t)
		w.reading(t, c, bob, true) // 149
		here.oneByOne(t, c, last+5+room, 2*last+4)
		away.oneByOne(t, c, last+5, 2*last+4)
		for _, p := range []*phone{here, away} {
			p.want(t, c, 2*last+7, 2*last+7)
			p.settled(t)
		}
	})
}
