package storetest

import (
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/parley-im/parley/domain"
)

// talk is what the model knows of a conversation and the one user whose sessions are tested.
type talk struct {
	head *domain.Conversation
	last domain.Seq
	past []domain.Interval
	mute bool // takes part without canRead
}

func (k *talk) present() bool { return k.mute || len(k.past) > 0 && k.past[len(k.past)-1].To == 0 }

// memory is what the model knows of a session.
type memory struct {
	id        domain.SessionID
	all       bool
	only      map[domain.ConversationID]bool
	positions map[domain.ConversationID]domain.Seq
}

func (m *memory) covers(id domain.ConversationID) bool { return m.all || m.only[id] }

func (m *memory) behind(talks []*talk) []domain.Stretch {
	var list []domain.Stretch
	for _, k := range talks {
		if !m.covers(k.head.ID) {
			continue
		}
		for _, i := range k.past {
			to := i.To
			if to == 0 {
				to = k.last
			}
			if from := max(i.From, m.positions[k.head.ID]+1); from <= to {
				list = append(list, domain.Stretch{Conversation: k.head.ID, From: from, To: to, Withheld: k.mute})
			}
		}
	}
	slices.SortFunc(list, compareStretches)
	return list
}

func sessionsMatchTheModel(t *testing.T, b Backend) {
	// Subscribing, acknowledging, joining and leaving meet in every order.
	const rounds, steps, conversations = 6, 60, 4
	s := open(t, b)
	w := NewWorld(t, s, 3)
	log := s.Committers()[0]
	for round := range rounds {
		seed := mrand.Uint64()
		r := mrand.New(mrand.NewPCG(seed, 0))
		var talks []*talk
		for i := range conversations {
			k := &talk{last: 1}
			if i%2 == 0 {
				k.head, k.past = w.Group(log, 1, 2), []domain.Interval{{From: 1}}
			} else {
				k.head = w.Group(log, 2)
			}
			talks = append(talks, k)
		}
		var sessions []*memory
		for i := range 2 {
			o := phone(w, 1, int64(1000+round))
			o.Device, o.Clean = fmt.Sprint(i), true
			sessions = append(sessions, &memory{
				id: fresh(t, s, o), only: make(map[domain.ConversationID]bool), positions: make(map[domain.ConversationID]domain.Seq),
			})
		}
		for step := range steps {
			what := w.step(r, log, talks, talks[r.IntN(len(talks))], sessions[r.IntN(len(sessions))])
			for i, m := range sessions {
				// Other rounds' conversations are the user's as well.
				var got []domain.Stretch
				for _, st := range behind(t, s, m.id, 1+r.IntN(4)) {
					if slices.ContainsFunc(talks, func(k *talk) bool { return k.head.ID == st.Conversation }) {
						got = append(got, st)
					}
				}
				equal(t, fmt.Sprintf("seed %d, step %d, %s: session %d is behind", seed, step, what, i), got, m.behind(talks))
			}
			if t.Failed() {
				return
			}
		}
	}
}

// step does something to a conversation or a session and its model, and says what.
func (w *World) step(r *mrand.Rand, log Log, talks []*talk, k *talk, m *memory) string {
	w.tb.Helper()
	id := k.head.ID
	switch r.IntN(8) {
	case 0:
		if k.present() {
			w.Change(log, w.User(0), &domain.RemoveParticipants{UUID: id, Participants: []domain.UserRef{w.Ref(1)}})
			k.last++
			if !k.mute {
				k.past[len(k.past)-1].To = k.last
			}
			k.mute = false
			return "leave"
		}
		w.Change(log, w.User(0), &domain.AddParticipants{UUID: id, Participants: w.New(1)})
		k.last++
		k.past = append(k.past, domain.Interval{From: k.last})
		return "join"
	case 1:
		if !k.present() {
			return "nothing"
		}
		k.mute = !k.mute
		must(w.tb, w.Try(log, w.Edit(id, func(c *domain.Conversation) {
			for i := range c.Participants {
				if c.Participants[i].UserID == w.Users[1].ID {
					c.Participants[i].Permissions.CanRead = !k.mute
				}
			}
		}))[0].Err)
		k.last++
		if k.mute {
			k.past[len(k.past)-1].To = k.last
		} else {
			k.past = append(k.past, domain.Interval{From: k.last})
		}
		return "permissions"
	case 2, 3:
		n := 1 + r.IntN(3)
		w.texts(log, k.head, n)
		k.last += domain.Seq(n)
		return "messages"
	case 4, 5:
		seq := 1 + domain.Seq(r.IntN(int(k.last)))
		must(w.tb, w.Store.SavePositions(w.tb.Context(), []domain.Position{{Session: m.id, Conversation: id, Seq: seq}}, nil))
		m.positions[id] = max(m.positions[id], seq)
		return "acknowledgement"
	default:
		return w.resubscribe(r, talks, k, m)
	}
}

// resubscribe takes one subscription away or adds one, as the gateway would; or repeats one.
func (w *World) resubscribe(r *mrand.Rand, talks []*talk, k *talk, m *memory) string {
	w.tb.Helper()
	what := "the same subscription"
	was := memory{all: m.all, only: make(map[domain.ConversationID]bool)}
	for id := range m.only {
		was.only[id] = true
	}
	var start []domain.ConversationID
	all := false
	switch n := r.IntN(6); {
	case n == 0:
		m.all, what = false, "unsubscribe from all"
	case n == 1:
		delete(m.only, k.head.ID)
		what = "unsubscribe from one"
	case n == 2 || m.all:
		m.all, all, what = true, true, "subscribe to all"
	case n < 5:
		m.only[k.head.ID] = true
		start, what = []domain.ConversationID{k.head.ID}, "subscribe to one"
	}
	var subs []domain.Subscription
	if m.all {
		subs = append(subs, toAll())
	}
	for _, k := range talks {
		id := k.head.ID
		if m.only[id] {
			subs = append(subs, toOne(k.head))
		}
		switch {
		case !m.covers(id):
			delete(m.positions, id)
		case !was.covers(id) && len(k.past) > 0:
			m.positions[id] = k.last
		}
	}
	must(w.tb, w.Store.SaveSubscriptions(w.tb.Context(), m.id, subs, start, all))
	return what
}
