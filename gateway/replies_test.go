package gateway_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
)

func TestRepliesComeBeforeEvents(t *testing.T) {
	// Somebody waits for a reply; nobody waits for the next event in particular.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		alice := w.subscriber(1, idle)
		alice.subscribe(alice.replies(), domain.SubscribeOptions{QoS: 1})
		for range 50 {
			w.do(2, message(c, "hello", ""))
		}
		alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe", RequestID: "r", WantsReply: true})
		w.settle()
		if n, err := alice.pull(64, 10); n != 10 || err != nil {
			t.Fatalf("pulled %d, %v", n, err)
		}
		if alice.deliveries[0].Publication.Topic != alice.replies() {
			t.Errorf("the first delivery is of %s", alice.deliveries[0].Publication.Topic)
		}
		if got := alice.notices(alice.replies()); len(got) != 1 || got[0]["requestId"] != "r" {
			t.Errorf("replies %v", got)
		}
	})
}

func TestTooManyRepliesEndTheSession(t *testing.T) {
	// Replies are in no log: who does not take them must learn that it misses some, and must not fill the memory.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(o *gateway.Options) { o.MaxDirectBytes = 100_000 })
		c := w.converse(1, 2)
		alice := w.subscriber(1, idle)
		other := w.connect(1, device("other"))
		for _, cl := range []*client{alice, other} {
			cl.subscribe(cl.replies()+"/#", domain.SubscribeOptions{})
		}
		for range 5000 {
			alice.submit(domain.Request{Command: &domain.GetMe{}, Name: "getMe", RequestID: "r", WantsReply: true})
			w.settle()
		}
		if got := alice.goodbyes(); !slices.Equal(got, []domain.Farewell{domain.TooSlow()}) {
			t.Errorf("the session was ended %d times: %v", len(got), got)
		}
		if n := w.gauge("parley_limits_reached_total"); n != 1 {
			t.Errorf("counted %v times", n)
		}
		if got := other.goodbyes(); len(got) > 0 || len(other.notices(other.replies())) != 5000 {
			t.Errorf("the device that reads got %d replies, %v", len(other.notices(other.replies())), got)
		}
		bytes := 0
		for n := 1; n > 0; {
			before := len(alice.deliveries)
			var err error
			if n, err = alice.pull(64, 64); err != nil {
				t.Fatal(err)
			}
			for _, d := range alice.deliveries[before:] {
				bytes += len(d.Publication.Payload)
			}
		}
		if bytes > 100_000 {
			t.Errorf("%d bytes were kept for it", bytes)
		}
		w.do(2, message(c, "hello", "")) // and the gateway goes on
	})
}

func TestARefusalThatNoAckCarriesIsAnErrorEvent(t *testing.T) {
	// MQTT 3.1.1 acknowledges without a code: the refusal goes to the replies topic and to the inbox.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1, 2)
		stranger, laptop := w.connect(9, device("phone")), w.connect(9, device("laptop"))
		for _, cl := range []*client{stranger, laptop} {
			cl.subscribe(cl.inbox(), domain.SubscribeOptions{QoS: 1})
			cl.subscribe(cl.replies(), domain.SubscribeOptions{QoS: 1})
		}
		topic := "conversations/" + c.String() + "/messages"
		refused := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":"hello"}`), Version: 4, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if refused.code() != domain.AccessDenied {
			t.Errorf("ended as %q", refused.code())
		}
		for _, cl := range []*client{stranger, laptop} {
			for _, where := range []string{cl.inbox(), cl.replies()} {
				got := cl.notices(where)
				if len(got) != 1 || got[0]["type"] != "error" || got[0]["topic"] != topic || got[0]["device"] != "phone" {
					t.Fatalf("%s has %v", where, got)
				}
				if e, _ := got[0]["error"].(map[string]any); e["code"] != "access-denied" || e["number"] != 12.0 {
					t.Errorf("%s says %v", where, e)
				}
			}
		}
		undecodable := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":`), Version: 4, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if undecodable.code() != domain.InvalidRequest || len(stranger.notices(stranger.inbox())) != 2 {
			t.Errorf("what cannot be read ended as %q, inbox %v", undecodable.code(), stranger.notices(stranger.inbox()))
		}
		five := stranger.submit(domain.DecodePublish(stranger.principal, &domain.Publish{
			Topic: topic, Payload: []byte(`{"text":"hello"}`), Version: 5, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if five.code() != domain.AccessDenied || len(stranger.notices(stranger.inbox())) != 2 {
			t.Errorf("MQTT 5 has the code in its acknowledgement, and got %v besides", stranger.notices(stranger.inbox()))
		}
	})
}

func TestRepliesGoWhereTheyWereAskedFor(t *testing.T) {
	// A client tells its own answers apart by topic and correlation data.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.converse(1, 2)
		alice := w.connect(1)
		alice.subscribe(alice.replies()+"/#", domain.SubscribeOptions{QoS: 1, Identifier: 3})
		only, bob := w.connect(1, device("only")), w.connect(2)
		only.subscribe(only.replies()+"/b", domain.SubscribeOptions{})
		bob.subscribe(bob.replies()+"/#", domain.SubscribeOptions{})
		for _, rest := range []string{"/a", "/b"} {
			alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
				Topic: "commands/getMe", Payload: []byte(`{"requestId":"x"}`), Version: 5, QoS: 1,
				ResponseTopic: alice.replies() + rest, Correlation: []byte{1, 2},
			}, domain.DefaultLimits()))
			w.settle()
		}
		failed := alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
			Topic: "commands/getUser", Payload: []byte(`{"requestId":"y","userId":999}`), Version: 5, QoS: 1,
		}, domain.DefaultLimits()))
		w.settle()
		if failed.code() != domain.UserNotFound {
			t.Errorf("ended as %q", failed.code())
		}
		if len(alice.notices(alice.replies()+"/a")) != 1 || len(alice.notices(alice.replies()+"/b")) != 1 {
			t.Errorf("alice got %v", alice.direct)
		}
		if got := alice.notices(alice.replies()); len(got) != 1 || got[0]["command"] != "getUser" || got[0]["error"] == nil {
			t.Errorf("the failure reads %v", got)
		}
		if d := alice.deliveries[0]; string(d.Publication.Correlation) != "\x01\x02" || !slices.Equal(d.Identifiers, []int{3}) {
			t.Errorf("delivered %+v", d)
		}
		if len(only.direct) != 1 || only.direct[0].topic != only.replies()+"/b" || len(bob.direct) != 0 {
			t.Errorf("others got %v, %v", only.direct, bob.direct)
		}
	})
}

func TestAReplyShowsTheStoredMessage(t *testing.T) {
	// Also to the second of twins, and after a repetition: the caller goes on with what is in the log.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.converse(1)
		alice := w.connect(1)
		alice.subscribe(alice.replies(), domain.SubscribeOptions{})
		for range 3 {
			alice.submit(domain.DecodePublish(alice.principal, &domain.Publish{
				Topic: "conversations/" + c.String() + "/messages", Version: 5, QoS: 1,
				Payload: []byte(`{"id":"a","text":"hello","requestId":"x"}`),
			}, domain.DefaultLimits()))
			w.settle()
		}
		replies := alice.notices(alice.replies())
		if len(replies) != 3 {
			t.Fatalf("%d replies", len(replies))
		}
		for _, r := range replies[1:] {
			first, again := replies[0]["result"].(map[string]any), r["result"].(map[string]any)
			a, _ := json.Marshal(first["message"])
			b, _ := json.Marshal(again["message"])
			if first["duplicate"] != nil || again["duplicate"] != true {
				t.Errorf("duplicate is %v and then %v", first["duplicate"], again["duplicate"])
			}
			if string(a) != string(b) || !strings.Contains(string(a), domain.NewMessageID(c, 2).String()) {
				t.Errorf("the first reply shows %s, another %s", a, b)
			}
		}
	})
}
