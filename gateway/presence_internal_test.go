package gateway

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
)

// lookup is a History that knows two users, and an Authenticator that lets both in.
type lookup struct{ History }

func (lookup) Heads(_ context.Context, _ domain.Principal, n domain.Needs) (*domain.Heads, error) {
	h := &domain.Heads{}
	for _, r := range n.Users {
		h.Users = append(h.Users, domain.User{ID: 1, Username: r.Username, Root: 1})
	}
	return h, nil
}

func (lookup) Authenticate(_ context.Context, hello domain.Hello) (domain.Principal, time.Time, error) {
	id := domain.UserID(len(hello.Username))
	return domain.Principal{User: id, Username: domain.Username(hello.Username), Root: 1, Account: 1}, time.Time{}, nil
}

type noLog struct{ Log }

type silent struct{}

func (silent) Wake()                 {}
func (silent) Close(domain.Farewell) {}

func TestPresenceForgetsWhoHasGone(t *testing.T) {
	// Users come and go for months: what is kept of those who have gone would fill any memory.
	synctest.Test(t, func(t *testing.T) {
		g, err := New(Options{Logs: []Log{noLog{}}, History: lookup{}, Authenticator: lookup{}})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		available := domain.Available
		for _, name := range []string{"a@chat.acme", "bb@chat.acme"} {
			for range 50 {
				s, _, err := g.Connect(t.Context(), domain.Hello{Username: name, Device: "d", Version: 5}, silent{})
				if err != nil {
					t.Fatal(err)
				}
				filters := []string{"users/a@chat.acme/status", "users/bb@chat.acme/status"}
				for range 2 {
					for _, refused := range s.Subscribe(t.Context(), []domain.Subscription{{Filter: filters[0]}, {Filter: filters[1]}}) {
						if refused != nil {
							t.Fatal(refused)
						}
					}
				}
				s.Submit(domain.Request{Command: &domain.SetStatus{State: &available}}, func(_ domain.Receipt, err error) {
					if err != nil {
						t.Error(err)
					}
				})
				s.Unsubscribe(t.Context(), filters[:1])
				s.Leave(true)
				// A subscription that comes too late leaves nothing either.
				g.presence.follow(s, "a@chat.acme", followed{id: 1}, true, true)
			}
		}
		<-time.After(5 * time.Minute)
		synctest.Wait()
		p := g.presence
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.users) + len(p.followers) + len(p.leaving) + len(p.changes) + len(p.news); n != 0 {
			t.Errorf("left are %d users, %d followed, %d leaving, %d changes, %d news",
				len(p.users), len(p.followers), len(p.leaving), len(p.changes), len(p.news))
		}
	})
}
