package bridge_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/parley-im/parley/domain"
)

const key = "Idempotency-Key: k-1"

func wantReplayed(t *testing.T, what string, a answer, want bool) {
	t.Helper()
	if got := a.Header.Get("Idempotency-Replayed") == "true"; got != want {
		t.Errorf("%s: replayed %v, want %v", what, got, want)
	}
}

func TestTheSameKeyGivesTheFirstAnswerAgain(t *testing.T) {
	w := newWorld(t, nil)
	for path, body := range map[string]string{
		"/v1/users": `{"username":"bob@chat.acme"}`, "/v1/users/bob@chat.acme/tokens": "", "/v1/conversations": `{"title":"x"}`,
		"/v1/conversations/" + someID + "/participants": `{"participants":[{"userId":4}]}`,
		"/v1/conversations/" + someID + "/messages":     `{"text":"x"}`,
		"/v1/services": `{"name":"x"}`, "/v1/services/x/rotate": "", "/v1/accounts": `{"name":"x","parent":"acme"}`,
		"/v1/accounts/acme/applications": `{"name":"x"}`,
	} {
		first := w.call("POST", path, body, key)
		wantReplayed(t, path, first, false)
		done := len(w.commands) + len(w.admin.calls)
		again := w.call("POST", path, body, key)
		wantReplayed(t, path+" again", again, true)
		again.want(t, path+" again", first.StatusCode, string(first.body))
		if again.Header.Get("Content-Type") != first.Header.Get("Content-Type") {
			t.Errorf("%s: Content-Type %q", path, again.Header.Get("Content-Type"))
		}
		if len(w.commands)+len(w.admin.calls) != done {
			t.Errorf("%s was done twice", path)
		}
	}
}

func TestAKeyWithAnotherRequestIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.call("POST", "/v1/conversations", `{"title":"x"}`, key).want(t, "first", 201, "")
	w.call("POST", "/v1/conversations", `{"title":"y"}`, key).wantProblem(t, "another body", 422, domain.InvalidRequest)
	w.call("POST", "/v1/conversations/"+someID+"/messages", `{"text":"x"}`, key).want(t, "another route", 201, "")
	other := strings.Replace(someID, "1", "2", 1)
	w.call("POST", "/v1/conversations/"+other+"/messages", `{"text":"x"}`, key).wantProblem(t, "another conversation", 422, domain.InvalidRequest)
}

func TestPrincipalsHaveKeysOfTheirOwn(t *testing.T) {
	// Otherwise one could read another's answer by guessing its key.
	w := newWorld(t, nil)
	for _, token := range []string{serviceKey, aliceToken, adminKey} {
		a := w.as(token, "POST", "/v1/conversations", `{"title":"x"}`, key)
		a.want(t, token, 201, "")
		wantReplayed(t, token, a, false)
	}
	if len(w.commands) != 3 {
		t.Errorf("%d commands", len(w.commands))
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	// What failed for the moment must be possible the next time.
	w := newWorld(t, nil)
	for _, code := range []domain.Code{domain.Internal, domain.Unavailable, domain.RateLimited} {
		w.fails(domain.Errorf(code, "not now"))
		w.call("POST", "/v1/conversations", `{}`, key).wantProblem(t, string(code), code.Info().Status, code)
	}
	w.fails(domain.Errorf(domain.AccessDenied, "never"))
	a := w.call("POST", "/v1/conversations", `{}`, key)
	a.wantProblem(t, "refusal", 403, domain.AccessDenied)
	wantReplayed(t, "refusal", a, false)
	w.answers(domain.Result{})
	a = w.call("POST", "/v1/conversations", `{}`, key)
	a.wantProblem(t, "refusal again", 403, domain.AccessDenied)
	wantReplayed(t, "refusal again", a, true)
}

func TestAKeyOfAMessageBecomesItsID(t *testing.T) {
	// The store knows the message by its id even if the gateway died before it could remember the answer.
	long := strings.Repeat("k", 65)
	digest := sha256.Sum256([]byte(long))
	for what, c := range map[string]struct{ key, body, want string }{
		"no id":    {"k-1", `{"text":"x"}`, "k-1"},
		"own id":   {"k-1", `{"text":"x","id":"mine"}`, "mine"},
		"64 bytes": {strings.Repeat("k", 64), `{"text":"x"}`, strings.Repeat("k", 64)},
		"long key": {long, `{"text":"x"}`, hex.EncodeToString(digest[:])},
	} {
		w := newWorld(t, nil)
		w.call("POST", "/v1/conversations/"+someID+"/messages", c.body, "Idempotency-Key: "+c.key).want(t, what, 201, "")
		m, ok := w.only().cmd.(*domain.SendMessage)
		if !ok || m.ClientID != c.want {
			t.Errorf("%s: %+v", what, m)
		}
	}
}

func TestConcurrentRequestsWithOneKeyAreDoneOnce(t *testing.T) {
	w := newWorld(t, nil)
	var once sync.Once
	entered, leave := make(chan struct{}), make(chan struct{})
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		once.Do(func() { close(entered) })
		<-leave
		return domain.Receipt{Result: &domain.Result{}}, nil
	}
	const others = 8
	answers := make(chan answer, others+1)
	request := func(body string) {
		answers <- w.call("POST", "/v1/conversations", body, key)
	}
	go request(`{"title":"x"}`)
	<-entered
	w.call("POST", "/v1/conversations", `{"title":"y"}`, key).wantProblem(t, "another request meanwhile", 422, domain.InvalidRequest)
	for range others {
		go request(`{"title":"x"}`)
	}
	close(leave)
	replayed := 0
	for range others + 1 {
		a := <-answers
		a.want(t, "one of many", 201, `{}`)
		if a.Header.Get("Idempotency-Replayed") != "" {
			replayed++
		}
	}
	if len(w.commands) != 1 || replayed != others {
		t.Errorf("%d commands, %d replays", len(w.commands), replayed)
	}
}

func TestAWaitingRequestTriesItselfWhenTheFirstFails(t *testing.T) {
	w := newWorld(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	runs := 0
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if runs++; runs > 1 {
			return domain.Receipt{Result: &domain.Result{}}, nil
		}
		close(entered)
		<-leave
		return domain.Receipt{}, domain.Errorf(domain.Unavailable, "not now")
	}
	first, second := make(chan answer), make(chan answer)
	go func() { first <- w.call("POST", "/v1/conversations", `{}`, key) }()
	<-entered
	go func() { second <- w.call("POST", "/v1/conversations", `{}`, key) }()
	close(leave)
	(<-first).wantProblem(t, "first", 503, domain.Unavailable)
	(<-second).want(t, "second", 201, `{}`)
}

func TestARequestGoesOnWithoutItsClient(t *testing.T) {
	// The client will ask again with the same key, and must not find it half done.
	w := newWorld(t, nil)
	ctx, hangUp := context.WithCancel(t.Context())
	w.do = func(ctx context.Context, _ domain.Principal, _ domain.Command) (domain.Receipt, error) {
		hangUp()
		return domain.Receipt{Result: &domain.Result{}}, ctx.Err()
	}
	w.handler.ServeHTTP(httptest.NewRecorder(), w.request(serviceKey, "POST", "/v1/conversations", `{}`, key).WithContext(ctx))
	a := w.call("POST", "/v1/conversations", `{}`, key)
	a.want(t, "asked again", 201, `{}`)
	wantReplayed(t, "asked again", a, true)
}

func TestAPanicDoesNotBlockTheKey(t *testing.T) {
	w := newWorld(t, nil)
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) { panic("boom") }
	w.call("POST", "/v1/conversations", `{}`, key).wantProblem(t, "panic", 500, domain.Internal)
	w.answers(domain.Result{})
	w.call("POST", "/v1/conversations", `{}`, key).want(t, "afterwards", 201, `{}`)
}

func TestAMemoryThatIsDown(t *testing.T) {
	w := newWorld(t, nil)
	w.memory.err = domain.Errorf(domain.Unavailable, "no store")
	w.call("POST", "/v1/conversations", `{}`, key).wantProblem(t, "cannot recall", 503, domain.Unavailable)
	if len(w.commands) != 0 {
		t.Error("it was done without knowing whether it had been done before")
	}
	w.memory.err = nil
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		w.memory.err = errors.New("no store")
		return domain.Receipt{Result: &domain.Result{}}, nil
	}
	w.call("POST", "/v1/conversations", `{}`, key).want(t, "cannot remember", 201, `{}`)
}

func TestAnotherNodeThatWasFasterWins(t *testing.T) {
	w := newWorld(t, nil)
	w.memory.rival = &domain.Remembered{Status: 201, ContentType: "application/json", Body: []byte(`{"existing":true}`)}
	a := w.call("POST", "/v1/conversations", `{}`, key)
	a.want(t, "beaten", 201, `{"existing":true}`)
	wantReplayed(t, "beaten", a, true)
}

func TestSecretsAreRememberedSealed(t *testing.T) {
	// The store has only digests of keys and tokens; a remembered answer must not be the way around that.
	w := newWorld(t, nil)
	for i, c := range [][2]string{
		{"/v1/services", `{"name":"x"}`}, {"/v1/services/x/rotate", ""}, {"/v1/users/bob@chat.acme/tokens", ""},
	} {
		w.call("POST", c[0], c[1], fmt.Sprintf("Idempotency-Key: s-%d", i))
	}
	if len(w.memory.kept) != 3 {
		t.Fatalf("%d answers kept", len(w.memory.kept))
	}
	for name, r := range w.memory.kept {
		for _, secret := range []string{"pk_", "access", "refresh"} {
			if bytes.Contains(r.Body, []byte(secret)) {
				t.Errorf("%s holds %s", name, r.Body)
			}
		}
		r.Body[len(r.Body)-1]++
	}
	w.call("POST", "/v1/services", `{"name":"x"}`, "Idempotency-Key: s-0").wantProblem(t, "sealed by another", 422, domain.InvalidRequest)
}

func TestWhatAMessageSaysIsNotRemembered(t *testing.T) {
	// A message that is removed must be gone everywhere: the remembered answer tells where it is, and the log what it says
	// now.
	w := newWorld(t, nil)
	id, err := domain.ParseConversationID(someID)
	if err != nil {
		t.Fatal(err)
	}
	m := &domain.Message{ID: domain.NewMessageID(id, 7), Conversation: id, Seq: 7, Content: domain.Content{Text: "a <secret>"}}
	sent := 0
	var sender domain.Principal
	var denied error
	w.do = func(_ context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error) {
		if _, ok := c.(*domain.SendMessage); ok {
			sent++
			sender = p
			return domain.Receipt{Result: &domain.Result{Message: m}}, nil
		}
		if again, ok := c.(*domain.RetransmitEvents); !ok || p != sender || again.Conversation != id || *again.From != 7 || *again.To != 7 {
			t.Errorf("%s: %+v", c.Name(), c)
		}
		return domain.Receipt{Result: &domain.Result{Events: []*domain.Event{{Message: m}}}}, denied
	}
	path := "/v1/conversations/" + someID + "/messages"
	first := w.call("POST", path, `{"text":"a <secret>"}`, key)
	first.want(t, "first", 201, "")
	for name, r := range w.memory.kept {
		if bytes.Contains(r.Body, []byte("secret")) {
			t.Errorf("%s holds %s", name, r.Body)
		}
	}
	again := w.call("POST", path, `{"text":"a <secret>"}`, key)
	again.want(t, "again", 201, string(first.body))
	wantReplayed(t, "again", again, true)
	m = &domain.Message{ID: m.ID, Conversation: id, Seq: 7, Removed: true}
	gone := w.call("POST", path, `{"text":"a <secret>"}`, key)
	wantReplayed(t, "removed", gone, true)
	if gone.StatusCode != 201 || bytes.Contains(gone.body, []byte("secret")) || !bytes.Contains(gone.body, []byte(`"removed":true`)) {
		t.Errorf("after the removal: %d %s", gone.StatusCode, gone.body)
	}
	// Who may not read it any more is told that it was stored, and not what others have made of it.
	m.Text, m.Removed, denied = "an edit", false, domain.Errorf(domain.AccessDenied, "you may not read")
	place := w.call("POST", path, `{"text":"a <secret>"}`, key)
	place.want(t, "without the right to read", 201, `{"message":{"uuid":"`+m.ID.String()+`","conversation":"`+someID+`","seq":7}}`)
	wantReplayed(t, "without the right to read", place, true)
	w.fails(domain.Errorf(domain.Unavailable, "no store"))
	w.call("POST", path, `{"text":"a <secret>"}`, key).wantProblem(t, "log away", 503, domain.Unavailable)
	if sent != 1 {
		t.Errorf("sent %d times", sent)
	}
}

func TestAKeyMeansNothingWhereNothingIsCreated(t *testing.T) {
	w := newWorld(t, nil)
	for range 2 {
		a := w.as("", "POST", "/v1/login", `{"username":"alice@chat.acme","password":"secret"}`, key)
		a.want(t, "login", 200, "")
		wantReplayed(t, "login", a, false)
	}
	if len(w.memory.kept) != 0 {
		t.Errorf("kept %v", w.memory.kept)
	}
}

func TestWhatIsRememberedOfAPasswordCannotBeGuessed(t *testing.T) {
	// Who has the store's files must not be able to try passwords any faster than the password's own hash allows.
	w := newWorld(t, nil)
	body := `{"username":"bob@chat.acme","password":"secret"}`
	w.call("POST", "/v1/users", body, key)
	guess := sha256.Sum256([]byte("POST\x00/v1/users\x00\x00" + body))
	for _, r := range w.memory.kept {
		if r.Fingerprint == guess {
			t.Error("the fingerprint is a plain digest of the request")
		}
	}
	if len(w.memory.kept) != 1 {
		t.Errorf("%d answers are remembered", len(w.memory.kept))
	}
}
