package gateway_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

// elsewhere is what other nodes have ended.
type elsewhere struct {
	mu    sync.Mutex
	list  []domain.Ending
	gone  map[string]bool // devices whose logins hold no more
	down  bool
	asked []string // devices, in order
	looks []int64
}

func (e *elsewhere) EndedSince(_ context.Context, since int64) (list []domain.Ending, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looks = append(e.looks, since)
	if e.down {
		return nil, errGone()
	}
	for _, v := range e.list {
		if v.At > since {
			list = append(list, v)
		}
	}
	return list, nil
}

func (e *elsewhere) Holds(_ context.Context, p domain.Principal) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = append(e.asked, p.Device)
	return !e.gone[p.Device], nil
}

func (e *elsewhere) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func TestLoginsThatEndElsewhereEndSessionsHere(t *testing.T) {
	// Whoever was locked out on one node has connections to the others, and they have to go within seconds; those that were
	// opened with what still holds have to stay.
	synctest.Test(t, func(t *testing.T) {
		e := &elsewhere{gone: make(map[string]bool)}
		w := newWorld(t, func(o *gateway.Options) { o.Endings = e })
		phone, desk, other := w.connect(1, device("phone")), w.connect(1, device("desk")), w.connect(2, device("other"))
		billing := w.attach(service(1))
		w.pass(5 * time.Second)
		e.set(func() {
			e.gone["phone"], e.gone["other"] = true, true
			e.list = []domain.Ending{{User: 1, At: time.Now().UnixMilli()}, {Service: 99, Root: 1, At: time.Now().UnixMilli()}}
		})
		w.pass(2 * time.Second)
		if got := phone.goodbyes(); len(got) != 1 || got[0] != domain.NotWelcome() {
			t.Errorf("the phone is told %v", got)
		}
		for name, c := range map[string]*client{"desk": desk, "user": other, "service": billing} {
			if got := c.goodbyes(); len(got) > 0 {
				t.Errorf("another %s is told %v", name, got)
			}
		}
		// Each session is asked about once, also one that was still on its way when its user's login ended.
		late := w.connect(1, device("late"))
		e.set(func() { e.gone["late"] = true })
		w.pass(10 * time.Second)
		if got := late.goodbyes(); len(got) != 1 {
			t.Errorf("a late session is told %v", got)
		}
		e.set(func() {
			if len(e.asked) != 3 {
				t.Errorf("asked about %v", e.asked)
			}
			e.list = append(e.list, domain.Ending{Service: service(1).Service, Root: 1, At: time.Now().UnixMilli()})
			e.gone[""] = true
		})
		w.pass(2 * time.Second)
		if got := billing.goodbyes(); len(got) != 1 {
			t.Errorf("the service is told %v", got)
		}
	})
}

func TestLoginsThatEndWhileTheStoreIsGoneAreNoticedLater(t *testing.T) {
	// An outage is no way around being locked out.
	synctest.Test(t, func(t *testing.T) {
		e := &elsewhere{gone: map[string]bool{"phone": true}}
		w := newWorld(t, func(o *gateway.Options) { o.Endings = e })
		phone := w.connect(1, device("phone"))
		w.pass(5 * time.Second)
		e.set(func() {
			e.down = true
			e.list = []domain.Ending{{User: 1, At: time.Now().UnixMilli()}}
		})
		w.pass(10 * time.Minute)
		if got := phone.goodbyes(); len(got) > 0 {
			t.Errorf("it is told %v", got)
		}
		e.set(func() { e.down = false })
		w.pass(2 * time.Second)
		if got := phone.goodbyes(); len(got) != 1 {
			t.Errorf("it is told %v", got)
		}
		e.set(func() {
			if age := time.Now().UnixMilli() - e.looks[len(e.looks)-1]; age > time.Minute.Milliseconds() {
				t.Errorf("still looking %d ms back", age)
			}
		})
	})
}

func TestLoginsThatEndElsewhereLeaveNoWills(t *testing.T) {
	// To be locked out is no loss, wherever that is said, and whoever is must not have the last word.
	synctest.Test(t, func(t *testing.T) {
		e := &elsewhere{gone: map[string]bool{"phone": true}}
		h := newHeir(t, func(o *gateway.Options) { o.Endings = e })
		phone := h.connect(1, device("phone"), h.withWill("locked out", 0))
		desk := h.connect(1, device("desk"), h.withWill("lost", 0))
		h.pass(5 * time.Second)
		e.set(func() { e.list = []domain.Ending{{User: 1, At: time.Now().UnixMilli()}} })
		h.pass(5 * time.Second)
		if got := phone.goodbyes(); len(got) != 1 {
			t.Errorf("the phone is told %v", got)
		}
		h.want("after a logout")
		desk.hangUp()
		h.pass(time.Second)
		h.want("after a loss", "willMessage lost")
	})
}

func TestWaitingWillsOfEndedLoginsAreRefused(t *testing.T) {
	// Whoever is locked out must not be heard an hour later, on whatever node.
	synctest.Test(t, func(t *testing.T) {
		e := &elsewhere{gone: make(map[string]bool)}
		h := newHeir(t, func(o *gateway.Options) {
			store := o.History.(*memory)
			o.Endings = e
			o.Authenticator = &door{store: store, login: func(domain.Hello) [16]byte { return [16]byte{1} }}
		})
		for _, name := range []string{"phone", "desk"} {
			h.connect(1, device(name), durable(86400), h.withWill(name, 3600)).hangUp()
		}
		h.pass(time.Minute)
		e.set(func() { e.gone["phone"] = true })
		h.pass(2 * time.Hour)
		h.want("when they are due", "willMessage desk")
		if n := h.outcome("refused"); n != 1 || h.wills.kept() != 0 {
			t.Errorf("%v wills were refused, %d are left", n, h.wills.kept())
		}
	})
}
