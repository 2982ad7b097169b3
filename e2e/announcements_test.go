package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// announcement is what a service tells users.
type announcement struct {
	UUID, ID, Text string
	Sender         struct{ Service string }
	Time, Expires  int64
	Read           bool
}

// announced waits for the next announcement in the inbox that the device has not had: one that is made while a device comes
// may be told twice.
func (d *device) announced(tb testing.TB) announcement {
	tb.Helper()
	for {
		var n struct{ Announcement announcement }
		if err := json.Unmarshal(d.notice(tb, "announcement").received.payload, &n); err != nil {
			tb.Fatal(err)
		}
		if !slices.Contains(d.shown, n.Announcement.UUID) {
			d.shown = append(d.shown, n.Announcement.UUID)
			return n.Announcement
		}
	}
}

// announce tells users something.
func (w *world) announce(tb testing.TB, text string, more map[string]any, users ...user) announcement {
	tb.Helper()
	to := make([]any, len(users))
	for i, u := range users {
		if to[i] = u.Name; i%2 == 1 {
			to[i] = u.ID
		}
	}
	body := map[string]any{"to": to, "text": text}
	maps.Copy(body, more)
	var made struct{ Announcement announcement }
	w.service.ok(tb, "POST", "/v1/announcements", body).into(tb, &made)
	return made.Announcement
}

// announcements gives the texts of a user's announcements, page by page.
func announcements(tb testing.TB, a api, query string) (texts []string) {
	tb.Helper()
	for cursor := ""; ; {
		var page struct {
			Announcements []announcement
			NextCursor    string
		}
		a.ok(tb, "GET", "/v1/announcements?limit=2&cursor="+cursor+query, nil).into(tb, &page)
		for _, n := range page.Announcements {
			texts = append(texts, n.Text)
		}
		if cursor = page.NextCursor; cursor == "" {
			return texts
		}
	}
}

func TestAnnouncementsReachEverybodyNamed(t *testing.T) {
	// Whoever is there is told at once, on all devices; whoever is away, at the next login, until it was read.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob", "carol")
		alice, bob, carol := users[0], users[1], users[2]
		phone, desk := w.online(t, alice, version, named("phone")), w.online(t, alice, 9-version, named("desk"))
		others := w.online(t, carol, version)
		first := w.announce(t, "one", map[string]any{"id": "a", "options": map[string]any{"priority": "high"}}, alice, bob)
		w.announce(t, "two", nil, alice, bob)
		for _, d := range []*device{phone, desk} {
			got := d.announced(t)
			if got.UUID != first.UUID || got.Text != "one" || got.Sender.Service != "Billing" || got.Expires-got.Time != 30*24*3600*1000 {
				t.Errorf("told %+v, made %+v", got, first)
			}
			if got := d.announced(t); got.Text != "two" {
				t.Errorf("told %+v", got)
			}
		}
		// The same id again tells nobody.
		if again := w.service.ok(t, "POST", "/v1/announcements", map[string]any{"to": []any{carol.Name}, "text": "x", "id": "a"}); again.status != 200 {
			t.Errorf("the same id: %d %s", again.status, again.body)
		}

		back := w.online(t, bob, version)
		if a, b := back.announced(t), back.announced(t); a.Text != "one" || b.Text != "two" {
			t.Errorf("told at the login: %q, %q", a.Text, b.Text)
		}
		var page struct {
			Result struct{ Announcements []announcement }
		}
		r := phone.command(t, "getAnnouncements", map[string]any{"unread": true})
		if err := json.Unmarshal(r.received.payload, &page); err != nil || len(page.Result.Announcements) != 2 || page.Result.Announcements[1].UUID != first.UUID {
			t.Errorf("%v %s", err, r.received.payload)
		}
		if r := phone.command(t, "markAnnouncementsRead", map[string]any{"announcements": first.UUID}); r.Error != nil {
			t.Errorf("%+v", r.Error)
		}
		if n := desk.notice(t, "announcementsRead"); !strings.Contains(string(n.received.payload), first.UUID) {
			t.Errorf("the other device is told %s", n.received.payload)
		}
		asAlice := w.as(t, alice)
		if got := announcements(t, asAlice, "&unread=true"); !slices.Equal(got, []string{"two"}) {
			t.Errorf("unread: %v", got)
		}
		w.announce(t, "three", nil, alice)
		if got := announcements(t, asAlice, ""); !slices.Equal(got, []string{"three", "two", "one"}) {
			t.Errorf("all: %v", got)
		}
		phone.leave()
		again := w.online(t, alice, version, named("phone"))
		if a, b := again.announced(t), again.announced(t); a.Text != "two" || b.Text != "three" {
			t.Errorf("told again: %q, %q", a.Text, b.Text)
		}
		asAlice.ok(t, "POST", "/v1/announcements/read", nil)
		again.leave()
		w.announce(t, "four", nil, alice, carol)
		last := w.online(t, alice, version, named("phone"))
		if got := last.announced(t); got.Text != "four" {
			t.Errorf("told what was read: %+v", got)
		}
		if got := others.announced(t); got.Text != "four" {
			t.Errorf("carol was told %+v", got)
		}
	})
}

func TestAnnouncementsCanBeTakenBack(t *testing.T) {
	// It was for others, or says what is not so: whoever has it open takes it away, whoever comes later never sees it.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		phone := w.online(t, alice, version)
		w.announce(t, "stays", nil, alice, bob)
		made := w.announce(t, "a secret", map[string]any{"id": "a"}, alice, bob)
		phone.announced(t)
		phone.announced(t)
		path := "/v1/announcements/" + made.UUID
		for by, who := range map[string]struct {
			api
			status int
		}{"a recipient": {w.as(t, alice), 403}, "another tree": {newWorld(t, w.gateway).service, 404}} {
			if no := who.refused(t, "DELETE", path, nil); no.Status != who.status {
				t.Errorf("%s: %+v", by, no)
			}
		}
		w.service.ok(t, "DELETE", path, nil)
		if n := phone.notice(t, "announcementRemoved"); !strings.Contains(string(n.received.payload), made.UUID) {
			t.Errorf("told %s", n.received.payload)
		}
		w.admin.ok(t, "DELETE", path, nil) // again
		for _, u := range users {
			if got := announcements(t, w.as(t, u), ""); !slices.Equal(got, []string{"stays"}) {
				t.Errorf("%s has %v", u.Name, got)
			}
		}
		later := w.online(t, bob, version)
		if got := later.announced(t); got.Text != "stays" {
			t.Errorf("who comes later is told %+v", got)
		}
		again := w.service.ok(t, "POST", "/v1/announcements", map[string]any{"to": alice.Name, "text": "x", "id": "a"})
		if again.status != 200 || !strings.Contains(string(again.body), `"removed":true`) || strings.Contains(string(again.body), "secret") {
			t.Errorf("its id again: %d %s", again.status, again.body)
		}
		if no := w.service.refused(t, "DELETE", "/v1/announcements/"+strings.Replace(made.UUID, made.UUID[:4], "ffff", 1), nil); no.Code != "not-found" {
			t.Errorf("one that is not there: %+v", no)
		}
	})
}

func TestAnnouncementsAreForServicesAndForAllOfAList(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *world) {
		alice := w.user(t, "alice")
		asAlice := w.as(t, alice)
		refused := func(what string, by api, body map[string]any, status int, code string) {
			t.Helper()
			if got := by.refused(t, "POST", "/v1/announcements", body); got.Status != status || got.Code != code {
				t.Errorf("%s: %d %s %s", what, got.Status, got.Code, got.Detail)
			}
		}
		refused("a user", asAlice, map[string]any{"to": alice.Name, "text": "x"}, 403, "access-denied")
		refused("one who does not exist", w.service, map[string]any{"to": []any{alice.Name, "nobody@chat." + w.account}, "text": "x"}, 404, "user-not-found")
		refused("one of another tree", newWorld(t, w.gateway).service, map[string]any{"to": alice.Name, "text": "x"}, 404, "user-not-found")
		refused("nothing said", w.service, map[string]any{"to": alice.Name}, 400, "invalid-request")
		refused("too long", w.service, map[string]any{"to": alice.Name, "text": strings.Repeat("x", 5001)}, 413, "message-too-large")
		refused("kept too long", w.service, map[string]any{"to": alice.Name, "text": "x", "expires": time.Now().Add(31 * 24 * time.Hour).UnixMilli()}, 400, "invalid-request")
		refused("a delay by a user", asAlice, map[string]any{"to": alice.Name, "text": "x", "delay": 1}, 403, "access-denied")
		if got := announcements(t, asAlice, ""); len(got) != 0 {
			t.Errorf("told %v", got)
		}
		if got := w.service.refused(t, "GET", "/v1/announcements", nil); got.Status != 403 {
			t.Errorf("a service asks for its own: %+v", got)
		}
		// A thousand of them are one request, and large ones do not end who comes.
		users := make([]any, 1000)
		for i := range users {
			name := fmt.Sprintf("user%03d@chat.%s", i, w.account)
			w.service.ok(t, "POST", "/v1/users", map[string]any{"username": name, "password": "p"})
			users[i] = name
		}
		part := []any{map[string]any{"mimeType": "text/plain", "body": strings.Repeat("x", 30000)}}
		for range 20 {
			w.service.ok(t, "POST", "/v1/announcements", map[string]any{"to": users, "parts": part})
		}
		one := user{Name: users[999].(string), password: "p"}
		d := w.online(t, one, 5)
		for range 8 {
			d.announced(t)
		}
		if len(announcements(t, w.as(t, one), "")) != 20 {
			t.Error("not all are there")
		}
		if r := d.command(t, "getAnnouncements", map[string]any{"limit": 100}); r.Error != nil || !strings.Contains(string(r.received.payload), "nextCursor") {
			t.Errorf("%d bytes, %+v", len(r.received.payload), r.Error)
		}
	})
}

func TestIDsOfTheAdminKeyAreOfOneAccountTree(t *testing.T) {
	// It greets the users of each customer under the same id: nobody is left out, or shown what others are told.
	inWorlds(t, func(t *testing.T, w *world) {
		for i, v := range []*world{w, newWorld(t, w.gateway)} {
			alice := v.user(t, "alice")
			text := fmt.Sprintf("welcome %d", i)
			body := map[string]any{"to": alice.Name, "text": text, "id": "welcome"}
			for _, status := range []int{201, 200} {
				res := w.admin.any(t, "POST", "/v1/announcements", body)
				if res.status != status || !strings.Contains(string(res.body), text) {
					t.Errorf("%d %s, want %d", res.status, res.body, status)
				}
			}
			later := map[string]any{"to": alice.Name, "text": text + " later", "id": "later", "delay": 1}
			first := plan(t, w.admin, "/v1/announcements", later)
			if again := plan(t, w.admin, "/v1/announcements", later); again.UUID != first.UUID {
				t.Errorf("scheduled twice: %s, %s", first.UUID, again.UUID)
			}
			becomes(t, v.service, first.UUID, "sent")
			if got, want := announcements(t, v.as(t, alice), ""), []string{text + " later", text}; !slices.Equal(got, want) {
				t.Errorf("told %v, want %v", got, want)
			}
		}
		if got := w.admin.refused(t, "POST", "/v1/announcements", map[string]any{"to": []any{}, "text": "x", "delay": 1}); got.Status != 400 {
			t.Errorf("for nobody: %+v", got)
		}
	})
}

// scheduled is what a service wants sent at a time.
type scheduled struct {
	UUID, State string
	At          int64
	Outcome     struct {
		Message, Announcement string
		Seq                   int64
		Error                 refusal
	}
}

// plan schedules something, and gives it.
func plan(tb testing.TB, a api, path string, body map[string]any) scheduled {
	tb.Helper()
	var made struct{ Scheduled scheduled }
	res := a.ok(tb, "POST", path, body)
	if res.into(tb, &made); res.status != 202 {
		tb.Errorf("scheduled with %d %s", res.status, res.body)
	}
	return made.Scheduled
}

// becomes waits until something scheduled is in a state.
func becomes(tb testing.TB, a api, uuid, state string) (n scheduled) {
	tb.Helper()
	eventually(tb, "it is "+state, func() error {
		var got struct{ Scheduled scheduled }
		res, err := a.try(tb.Context(), "GET", "/v1/scheduled/"+uuid, nil)
		if err != nil {
			return err
		}
		if res.into(tb, &got); got.Scheduled.State != state {
			return fmt.Errorf("it is %s", got.Scheduled.State)
		}
		n = got.Scheduled
		return nil
	})
	return n
}

func TestScheduledMessagesComeAtTheirTime(t *testing.T) {
	inWorlds(t, func(t *testing.T, w *world) {
		users := w.users(t, "alice", "bob")
		alice, bob := users[0], users[1]
		d := w.online(t, alice, 5)
		c := w.conversation(t, alice, bob)
		d.hear(t, c)
		path := "/v1/conversations/" + c + "/messages"
		short := w.conversation(t, alice, bob)
		d.hear(t, short)
		asAlice := w.as(t, alice)
		at := time.Now().Add(8 * time.Second).UnixMilli() // long enough for all that has to be done before
		never := plan(t, w.service, path, map[string]any{"text": "never", "at": at})
		w.service.ok(t, "DELETE", "/v1/scheduled/"+never.UUID, nil)
		w.service.ok(t, "DELETE", "/v1/scheduled/"+never.UUID, nil)
		gone := plan(t, w.service, "/v1/conversations/"+short+"/messages", map[string]any{"text": "gone", "at": at})
		asAlice.ok(t, "DELETE", "/v1/conversations/"+short, nil)
		told := plan(t, w.service, "/v1/announcements", map[string]any{"to": alice.Name, "text": "told", "at": at})
		byBob := plan(t, w.service, path, map[string]any{"text": "as bob", "as": bob.Name, "at": at, "id": "own"})
		far := plan(t, w.service, path, map[string]any{"text": "far", "delay": 30 * 24 * 3600})
		// Asking again, by the key or by the id, plans nothing more.
		again := w.service.with("Idempotency-Key", "k")
		if a, b := plan(t, again, path, map[string]any{"text": "key", "delay": 100}), plan(t, again, path, map[string]any{"text": "key", "delay": 100}); a.UUID != b.UUID {
			t.Errorf("%+v, %+v", a, b)
		}
		if n := plan(t, w.service, path, map[string]any{"text": "other", "as": bob.Name, "delay": 100, "id": "own"}); n.UUID != byBob.UUID || n.At != at {
			t.Errorf("%+v", n)
		}

		if got := d.announced(t); got.Text != "told" || got.Time < at || got.ID != told.UUID {
			t.Errorf("told %+v at %d", got, at)
		}
		ev := d.hear(t, c)
		if ev.Message.Text != "as bob" || ev.Initiator.Username != bob.Name || ev.Time < at {
			t.Errorf("%s", ev.raw)
		}
		sent := becomes(t, w.service, byBob.UUID, "sent")
		if sent.Outcome.Seq != ev.Seq || sent.Outcome.Message != ev.Message.UUID {
			t.Errorf("%+v, sent %s", sent, ev.raw)
		}
		if n := becomes(t, w.service, told.UUID, "sent"); n.Outcome.Announcement == "" {
			t.Errorf("%+v", n)
		}
		if got := w.service.refused(t, "DELETE", "/v1/scheduled/"+byBob.UUID, nil); got.Status != 409 || got.Code != "already-sent" || got.Number != 113 {
			t.Errorf("cancelled too late: %+v", got)
		}
		// What is wrong by then is told.
		if n := becomes(t, w.service, gone.UUID, "refused"); n.Outcome.Error.Code != "conversation-removed" {
			t.Errorf("%+v", n)
		}
		if got := becomes(t, w.service, never.UUID, "cancelled"); got.Outcome.Seq != 0 {
			t.Errorf("%+v", got)
		}
		for _, ev := range w.log(t, c) {
			if ev.Message != nil && ev.Message.Text == "never" {
				t.Error("a cancelled message was sent")
			}
		}
		var list struct{ Scheduled []scheduled }
		w.service.ok(t, "GET", "/v1/scheduled", nil).into(t, &list)
		if len(list.Scheduled) != 2 || list.Scheduled[1].UUID != far.UUID {
			t.Errorf("pending: %+v", list)
		}
		for what, tc := range map[string]struct {
			by   api
			path string
			body map[string]any
			want int
		}{
			"31 days":                {w.service, path, map[string]any{"text": "x", "delay": 31 * 24 * 3600}, 400},
			"negative":               {w.service, path, map[string]any{"text": "x", "delay": -1}, 400},
			"the past":               {w.service, path, map[string]any{"text": "x", "at": 1}, 400},
			"both":                   {w.service, path, map[string]any{"text": "x", "at": at, "delay": 1}, 400},
			"a removed conversation": {w.service, "/v1/conversations/" + short + "/messages", map[string]any{"text": "x", "delay": 1}, 410},
			"a user":                 {asAlice, path, map[string]any{"text": "x", "delay": 1}, 403},
			"an unknown user":        {w.service, "/v1/announcements", map[string]any{"to": "x@chat." + w.account, "text": "x", "delay": 1}, 404},
		} {
			if got := tc.by.refused(t, "POST", tc.path, tc.body); got.Status != tc.want {
				t.Errorf("%s: %+v", what, got)
			}
		}
		other := newWorld(t, w.gateway).service
		if got := other.refused(t, "GET", "/v1/scheduled/"+far.UUID, nil); got.Code != "not-found" {
			t.Errorf("another tree: %+v", got)
		}
		if got := asAlice.refused(t, "GET", "/v1/scheduled", nil); got.Code != "access-denied" {
			t.Errorf("a user lists: %+v", got)
		}
	})
}

func TestScheduledMessagesSurviveKill9(t *testing.T) {
	// The gateway that accepted them is gone when they are due, whatever it was doing: each comes once, from the next one.
	onBothStores(t, func(t *testing.T, s store) {
		url := s.empty(t)
		first := spawn(t, url)
		w := newWorld(t, first.gateway)
		users := w.users(t, "alice", "bob")
		c := w.conversation(t, users...)
		path := "/v1/conversations/" + c + "/messages"
		const n = 40
		var uuids []string
		for i := range n {
			at := time.Now().Add(3*time.Second + time.Duration(i)*100*time.Millisecond).UnixMilli()
			uuids = append(uuids, plan(t, w.service, path, map[string]any{"text": strconv.Itoa(i), "at": at}).UUID)
		}
		told := plan(t, w.service, "/v1/announcements", map[string]any{"to": users[1].Name, "text": "told", "delay": 4})
		becomes(t, w.service, uuids[3], "sent") // in the midst of it
		first.signal(t, syscall.SIGKILL)
		first.exit(t)

		second := spawn(t, url)
		again := second.api(w.service.token)
		for _, uuid := range append(uuids, told.UUID) {
			becomes(t, again, uuid, "sent")
		}
		count := make(map[string]int)
		list, err := readLog(t.Context(), again, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range list {
			if ev.Message != nil {
				count[ev.Message.Text]++
			}
		}
		for i := range n {
			if count[strconv.Itoa(i)] != 1 {
				t.Errorf("message %d was sent %d times", i, count[strconv.Itoa(i)])
			}
		}
		d := second.online(t, users[1], 5)
		if got := d.announced(t); got.Text != "told" {
			t.Errorf("told %+v", got)
		}
		if got := announcements(t, second.api(w.token2(t, second, users[1])), ""); len(got) != 1 {
			t.Errorf("announcements: %v", got)
		}
	})
}

// token2 gives an access token of the user, made by another gateway.
func (w *world) token2(tb testing.TB, g *child, u user) string {
	tb.Helper()
	var made struct{ AccessToken string }
	g.api(w.service.token).ok(tb, "POST", "/v1/users/"+u.Name+"/tokens", map[string]any{}).into(tb, &made)
	return made.AccessToken
}

func TestTwoGatewaysSendScheduledMessagesOnce(t *testing.T) {
	// Both look for what is due at the same time, and a service may cancel on either.
	t.Parallel()
	url := store{"postgres"}.empty(t)
	one, two := start(t, url), start(t, url)
	w := newWorld(t, one)
	users := w.users(t, "alice", "bob")
	c := w.conversation(t, users...)
	const n = 60
	at := time.Now().Add(10 * time.Second).UnixMilli() // long enough to schedule them all, at once
	uuids := make([]string, n)
	var planning sync.WaitGroup
	for i := range n {
		planning.Go(func() {
			g := []*gateway{one, two}[i%2]
			body := map[string]any{"text": strconv.Itoa(i), "at": at}
			var made struct{ Scheduled scheduled }
			res, err := g.api(w.service.token).try(t.Context(), "POST", "/v1/conversations/"+c+"/messages", body)
			if err == nil {
				err = json.Unmarshal(res.body, &made)
			}
			if uuids[i] = made.Scheduled.UUID; err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		})
	}
	planning.Wait()
	cancelled := make(map[string]bool)
	eventually(t, "the time has come", func() error {
		if time.Now().UnixMilli() < at {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for i, uuid := range slices.Backward(uuids) {
		res := two.api(w.service.token).any(t, "DELETE", "/v1/scheduled/"+uuid, nil)
		if res.status != 204 && res.status != 409 {
			t.Errorf("cancelling: %d %s", res.status, res.body)
		}
		cancelled[strconv.Itoa(i)] = res.status == 204
	}
	for i, uuid := range uuids {
		state := "sent"
		if cancelled[strconv.Itoa(i)] {
			state = "cancelled"
		}
		becomes(t, one.api(w.service.token), uuid, state)
	}
	count := make(map[string]int)
	for _, ev := range w.log(t, c) {
		if ev.Message != nil {
			count[ev.Message.Text]++
		}
	}
	for i := range n {
		text := strconv.Itoa(i)
		if want := map[bool]int{true: 0, false: 1}[cancelled[text]]; count[text] != want {
			t.Errorf("message %d was sent %d times; cancelled: %t", i, count[text], cancelled[text])
		}
	}
}

func TestServicesTalkOverMQTT(t *testing.T) {
	// A backend that lives on one MQTT connection gets its answers there, and nobody else does.
	byVersion(t, func(t *testing.T, w *world, version byte) {
		alice := w.user(t, "alice")
		billing := user{Name: "service/Billing@" + w.account, password: w.service.token}
		d := w.connect(t, billing, version, named("one"))
		d.subscribe(t, 1, billing.replies(), billing.replies()+"/#")
		other := w.connect(t, billing, version, named("two"))
		other.subscribe(t, 1, billing.replies())
		listener := w.online(t, alice, version)

		made := d.command(t, "createConversation", map[string]any{"title": "an empty room"})
		var result struct{ Conversation conversation }
		if err := json.Unmarshal(made.Result, &result); err != nil || made.Error != nil || len(result.Conversation.Participants) != 0 {
			t.Fatalf("%+v %s", made.Error, made.Result)
		}
		if _, err := other.awaitReply(t.Context(), made.RequestID); err != nil {
			t.Errorf("the other session of the service: %v", err)
		}
		c := result.Conversation.UUID
		if r := d.command(t, "addParticipants", map[string]any{"uuid": c, "participants": refs(alice)}); r.Error != nil {
			t.Errorf("%+v", r.Error)
		}
		listener.hear(t, c)
		if r := d.command(t, "sendMessage", map[string]any{"conversation": c, "text": "hi"}); r.Error != nil {
			t.Errorf("%+v", r.Error)
		}
		if ev := listener.hear(t, c); ev.Message.Text != "hi" || ev.Initiator.Service != "Billing" {
			t.Errorf("%s", ev.raw)
		}
		if r := d.command(t, "announce", map[string]any{"to": alice.ID, "text": "told"}); r.Error != nil {
			t.Errorf("%+v", r.Error)
		}
		listener.announced(t)
		if r := d.command(t, "getMe", nil); r.Error == nil || r.Error.Code != "user-not-found" {
			t.Errorf("%s", r.received.payload)
		}
		for _, topic := range []string{"users/service/Other@" + w.account + "/replies", "users/" + billing.Name + "/inbox", alice.replies()} {
			if codes, err := d.trySubscribe(t.Context(), 1, topic); err == nil && codes[0] < 0x80 {
				t.Errorf("%s is open to the service", topic)
			}
		}
		if codes, err := listener.trySubscribe(t.Context(), 1, billing.replies()); err == nil && codes[0] < 0x80 {
			t.Error("a user listens to the replies of a service")
		}
		if version == 5 {
			a := d.publish(t, publishing{topic: "commands/getConversation", qos: 1, payload: mustJSON(t, map[string]any{"uuid": c, "requestId": "r"}), responseTo: billing.replies() + "/mine"})
			if a.reason != 0 || d.reply(t, "r").received.topic != billing.replies()+"/mine" {
				t.Errorf("PUBACK 0x%02x %s", a.reason, a.text)
			}
			if a := d.publish(t, publishing{topic: "commands/getConversation", qos: 1, payload: mustJSON(t, map[string]any{"uuid": c}), responseTo: alice.replies()}); a.reason != 0x87 {
				t.Errorf("a user's topic as Response Topic: 0x%02x", a.reason)
			}
		}
	})
}
