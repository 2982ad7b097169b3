package gateway_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-im/parley/domain"
)

func data(s string) *domain.RawObject {
	o := domain.RawObject(s)
	return &o
}

func TestOwnDevicesSeeTheirUserChangeInOrder(t *testing.T) {
	// A phone shows what the tablet has just said, and the last word is the last: a user's changes stay in their order
	// though they concern no conversation.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const last = 200
		phone, tablet := w.connect(1, device("phone")), w.connect(1, device("tablet"))
		other, deaf := w.connect(2), w.connect(1, device("watch"))
		for _, cl := range []*client{phone, tablet, other} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
		}
		var answers []*answer
		for i := range last + 1 {
			answers = append(answers, phone.submit(domain.Request{Command: &domain.EditUser{
				CustomData: data(fmt.Sprintf(`{"n":%d}`, i)), PrivateCustomData: data(`{"secret":true}`),
			}}))
		}
		w.settle()
		for i, a := range answers {
			if a.code() != "" {
				t.Fatalf("change %d: %v", i, a.err)
			}
		}
		for _, cl := range []*client{phone, tablet} {
			got := cl.notices(cl.inbox())
			if len(got) != last+1 {
				t.Fatalf("%s heard of %d changes", cl.session.Principal().Device, len(got))
			}
			for i, n := range got {
				u, _ := n["user"].(map[string]any)
				private, _ := u["privateCustomData"].(map[string]any)
				if n["type"] != "editUser" || fmt.Sprint(u["customData"]) != fmt.Sprintf("map[n:%d]", i) || private["secret"] != true {
					t.Fatalf("notice %d is %v", i, n)
				}
			}
		}
		if got := append(other.notices(other.inbox()), deaf.notices(deaf.inbox())...); len(got) != 0 {
			t.Errorf("others heard %v", got)
		}
	})
}

func TestAChangeOfUnknownOutcomeIsTold(t *testing.T) {
	// The batch is given again, and what the first attempt had written is no reason to keep silent.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cl := w.connect(1)
		cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
		failed := false
		w.store.set(func() {
			w.store.afterCommit = func(context.Context, commit) error {
				if failed {
					return nil
				}
				failed = true
				return errGone()
			}
		})
		w.do(1, &domain.EditUser{CustomData: data(`{"a":1}`)})
		w.pass(time.Second)
		if got := cl.notices(cl.inbox()); !failed || len(got) != 1 {
			t.Errorf("failed: %t, told: %v", failed, got)
		}
	})
}
