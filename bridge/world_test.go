package bridge_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/domain"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	serviceKey = "pk_service"
	aliceToken = "alice"
	adminKey   = "admin"
	someID     = "0190a0a0-0000-7000-8000-000000000001"
)

// world is the API over fakes: do and admin answer what the test tells them to, memory remembers.
type world struct {
	t        testing.TB
	handler  http.Handler
	registry *prometheus.Registry

	mu       sync.Mutex // guards the following
	commands []issued
	do       func(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error)
	admin    *fakeAdmin
	memory   *fakeMemory
}

// issued is a command that reached the gateway.
type issued struct {
	by  domain.Principal
	cmd domain.Command
}

func newWorld(t testing.TB, change func(*bridge.Options)) *world {
	t.Helper()
	w := &world{
		t: t, registry: prometheus.NewRegistry(), admin: &fakeAdmin{},
		memory: &fakeMemory{kept: make(map[string]domain.Remembered)},
	}
	o := bridge.Options{
		Do: func(ctx context.Context, p domain.Principal, c domain.Command) (domain.Receipt, error) {
			w.mu.Lock()
			w.commands = append(w.commands, issued{p, c})
			do := w.do
			w.mu.Unlock()
			if do == nil {
				return domain.Receipt{Result: &domain.Result{}}, nil
			}
			return do(ctx, p, c)
		},
		Accounts: w.admin, Memory: w.memory, Contents: newContents("a/b", 3), Schedules: &fakeSchedules{}, Version: "v1.2.3", Commit: "abc", Registerer: w.registry,
		Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) },
	}
	if change != nil {
		change(&o)
	}
	var err error
	if w.handler, err = bridge.New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

// forget makes w as good as new for the next run of a fuzz target; a new one would take longer than the run.
func (w *world) forget(t testing.TB) { w.t, w.commands, w.admin.calls = t, nil, nil }

// answers makes every command answer with the result.
func (w *world) answers(r domain.Result) {
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		return domain.Receipt{Result: &r}, nil
	}
}

// fails makes every command fail.
func (w *world) fails(err error) {
	w.do = func(context.Context, domain.Principal, domain.Command) (domain.Receipt, error) {
		return domain.Receipt{}, err
	}
}

// only gives the only command so far.
func (w *world) only() issued {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.commands) != 1 {
		w.t.Fatalf("%d commands were run", len(w.commands))
	}
	return w.commands[0]
}

// answer is what a request got.
type answer struct {
	*http.Response
	body []byte
}

// call makes a request as the service, with header lines such as "Name: value". A body of "" is none.
func (w *world) call(method, path, body string, header ...string) answer {
	w.t.Helper()
	return w.as(serviceKey, method, path, body, header...)
}

func (w *world) as(token, method, path, body string, header ...string) answer {
	w.t.Helper()
	return w.send(w.request(token, method, path, body, header...))
}

func (w *world) request(token, method, path, body string, header ...string) *http.Request {
	w.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(w.t.Context(), method, path, r)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	return req
}

func (w *world) send(req *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	res := rec.Result()
	return answer{res, rec.Body.Bytes()}
}

// wantProblem fails the test unless the answer is a complete problem with the status and code.
func (a answer) wantProblem(t testing.TB, what string, status int, code domain.Code) map[string]any {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Errorf("%s: %d %s, not JSON: %v", what, a.StatusCode, a.body, err)
		return nil
	}
	if a.StatusCode != status || p["code"] != string(code) || p["status"] != float64(status) {
		t.Errorf("%s: got %d %s, want %d %s", what, a.StatusCode, a.body, status, code)
	}
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("%s: Content-Type %q", what, ct)
	}
	for _, field := range []string{"type", "title", "number", "detail"} {
		if v, ok := p[field]; !ok || v == "" {
			t.Errorf("%s: %s is missing in %s", what, field, a.body)
		}
	}
	return p
}

// want fails the test unless the answer has the status and, if body is not empty, is the same JSON.
func (a answer) want(t testing.TB, what string, status int, body string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s: got %d %s, want %d", what, a.StatusCode, a.body, status)
	}
	if body == "" {
		return
	}
	if got, want := canonical(t, a.body), canonical(t, []byte(body)); got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func canonical(t testing.TB, b []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s is not JSON: %v", b, err)
	}
	c, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(c)
}

func principalOf(token string) (domain.Principal, bool) {
	switch token {
	case serviceKey:
		return domain.Principal{Service: 7, ServiceName: "billing", Root: 1, Account: 1}, true
	case aliceToken:
		return domain.Principal{User: 3, Username: "alice@chat.acme", Root: 1, Account: 1}, true
	case adminKey:
		return domain.Principal{Admin: true}, true
	}
	return domain.Principal{}, false
}

// fakeAdmin is a bridge.Administration that notes what it is asked and answers with err.
type fakeAdmin struct {
	mu    sync.Mutex
	calls []string
	users []domain.User
	err   error
	// panics, when set, is what Login panics with.
	panics any
	made   int
}

func (f *fakeAdmin) note(parts ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.Join(parts, " "))
	return f.err
}

func (f *fakeAdmin) Bearer(_ context.Context, token string) (domain.Principal, error) {
	if token == "down" {
		return domain.Principal{}, domain.Errorf(domain.Unavailable, "no store")
	}
	p, ok := principalOf(token)
	if !ok {
		return p, domain.Errorf(domain.NotAuthenticated, "wrong token")
	}
	return p, nil
}

func (f *fakeAdmin) tokens() domain.Tokens {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made++
	return domain.Tokens{
		AccessToken: "access" + strings.Repeat("!", f.made), AccessExpires: 1, RefreshToken: "refresh", RefreshExpires: 2,
	}
}

func (f *fakeAdmin) Login(_ context.Context, username, password string) (domain.Login, error) {
	if f.panics != nil {
		panic(f.panics)
	}
	err := f.note("login", username, password)
	return domain.Login{Tokens: f.tokens(), User: domain.User{ID: 3, Username: domain.Username(username)}}, err
}

func (f *fakeAdmin) Refresh(_ context.Context, token string) (domain.Login, error) {
	err := f.note("refresh", token)
	return domain.Login{Tokens: f.tokens(), User: domain.User{ID: 3, Username: "alice@chat.acme"}}, err
}

func (f *fakeAdmin) Logout(_ context.Context, token string) error { return f.note("logout", token) }

func (f *fakeAdmin) IssueTokens(_ context.Context, _ domain.Principal, u domain.Username) (domain.Tokens, error) {
	err := f.note("tokens", string(u))
	return f.tokens(), err
}

func (f *fakeAdmin) RevokeTokens(_ context.Context, _ domain.Principal, u domain.Username) error {
	return f.note("revoke", string(u))
}

func (f *fakeAdmin) OneTimeKey(_ context.Context, username string) (domain.OneTimeKey, error) {
	return domain.OneTimeKey{Key: "k", Expires: 5}, f.note("key", username)
}

func (f *fakeAdmin) LoginOneTime(_ context.Context, username, key, hash string) (domain.Login, error) {
	return domain.Login{Tokens: f.tokens()}, f.note("login with a key", username, key, hash)
}

func (f *fakeAdmin) OneTimeSecret(_ context.Context, _ domain.Principal, u domain.Username) (string, error) {
	return "os_1", f.note("secret", string(u))
}

func (f *fakeAdmin) ForgetOneTimeSecret(_ context.Context, _ domain.Principal, u domain.Username) error {
	return f.note("forget", string(u))
}

func (f *fakeAdmin) CreateUser(_ context.Context, _ domain.Principal, r domain.UserRequest) (domain.User, error) {
	err := f.note("create", string(r.Username), r.DisplayName, string(r.CustomData))
	return domain.User{ID: 4, Username: r.Username, DisplayName: r.DisplayName, CustomData: r.CustomData}, err
}

func (f *fakeAdmin) UpdateUser(_ context.Context, _ domain.Principal, u domain.Username, e domain.UserEdit) (domain.User, error) {
	b, _ := json.Marshal(e)
	return domain.User{ID: 4, Username: u}, f.note("edit", string(u), string(b))
}

func (f *fakeAdmin) DeleteUser(_ context.Context, _ domain.Principal, u domain.Username) error {
	return f.note("delete", string(u))
}

func (f *fakeAdmin) SearchUsers(_ context.Context, _ domain.Principal, q domain.UserQuery) ([]domain.User, error) {
	b, _ := json.Marshal(q)
	err := f.note("search", string(b))
	var found []domain.User
	for _, u := range f.users {
		if u.ID > q.After && len(found) < q.Limit {
			found = append(found, u)
		}
	}
	return found, err
}

func (f *fakeAdmin) CreateService(_ context.Context, _ domain.Principal, account, name string) (domain.Service, string, error) {
	err := f.note("service", account, name)
	return domain.Service{ID: 9, Name: name, AccountName: account, Created: 5, KeyHash: [32]byte{1}}, "pk_new" + f.tokens().AccessToken, err
}

func (f *fakeAdmin) RotateService(_ context.Context, _ domain.Principal, account, name string) (domain.Service, string, error) {
	return domain.Service{Name: name, AccountName: account}, "pk_rotated", f.note("rotate", account, name)
}

func (f *fakeAdmin) DeleteService(_ context.Context, _ domain.Principal, account, name string) error {
	return f.note("unservice", account, name)
}

func (f *fakeAdmin) Services(_ context.Context, _ domain.Principal, _ domain.TreeQuery) ([]domain.Service, error) {
	return []domain.Service{{ID: 9, Name: "billing", AccountName: "acme", Created: 5, KeyHash: [32]byte{1}}}, f.note("services")
}

func (f *fakeAdmin) CreateAccount(_ context.Context, p domain.Principal, name, parent string) (domain.Account, error) {
	a := domain.Account{ID: 2, Name: name, Root: 2}
	if parent != "" || !p.Admin {
		a.Parent, a.ParentName, a.Root = 1, "acme", 1
	}
	a.Effective = a.Settings.Under(domain.AccountSettings{})
	return a, f.note("account", name, parent)
}

func (f *fakeAdmin) Accounts(_ context.Context, _ domain.Principal, _ domain.TreeQuery) ([]domain.Account, error) {
	on := domain.AccountSettings{EditMessages: domain.On, RemoveMessages: domain.On}
	return []domain.Account{
		{ID: 1, Name: "acme", Root: 1, Effective: on}, {ID: 2, Name: "acme-labs", Parent: 1, ParentName: "acme", Root: 1, Effective: on},
	}, f.note("accounts")
}

func (f *fakeAdmin) Account(_ context.Context, _ domain.Principal, name string) (domain.Account, error) {
	return domain.Account{Name: name}, f.note("one account", name)
}

func (f *fakeAdmin) EditSettings(_ context.Context, _ domain.Principal, name string, e domain.SettingsEdit) (domain.Account, error) {
	a := domain.Account{Name: name}
	if e.EditMessages != nil {
		a.Settings.EditMessages = *e.EditMessages
	}
	if e.RemoveMessages != nil {
		a.Settings.RemoveMessages = *e.RemoveMessages
	}
	a.Effective = a.Settings.Under(domain.AccountSettings{EditMessages: domain.Off})
	return a, f.note("settings", name)
}

func (f *fakeAdmin) CreateApplication(_ context.Context, _ domain.Principal, account, name string) error {
	return f.note("application", account, name)
}

func (f *fakeAdmin) DeleteAccount(_ context.Context, _ domain.Principal, name string) error {
	if name == "acme" {
		return domain.Errorf(domain.InUse, "account \"acme\" has child accounts")
	}
	return f.note("unaccount", name)
}

func (f *fakeAdmin) Applications(_ context.Context, _ domain.Principal, account string) ([]string, error) {
	return []string{"alarm", "chat"}, f.note("applications", account)
}

func (f *fakeAdmin) DeleteApplication(_ context.Context, _ domain.Principal, account, name string) error {
	return f.note("unapplication", account, name)
}

// last gives the last call.
func (f *fakeAdmin) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return ""
	}
	return f.calls[len(f.calls)-1]
}

// fakeMemory is a bridge.Memory.
type fakeMemory struct {
	mu   sync.Mutex
	kept map[string]domain.Remembered
	err  error
	// rival, when set, is what another node has remembered in the meantime.
	rival *domain.Remembered
}

func (m *fakeMemory) Recall(_ context.Context, scope, key string) (domain.Remembered, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.kept[scope+"|"+key]
	return r, ok, m.err
}

func (m *fakeMemory) Remember(_ context.Context, scope, key string, r domain.Remembered, now int64) (domain.Remembered, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return domain.Remembered{}, m.err
	}
	if m.rival != nil {
		rival := *m.rival
		rival.Fingerprint = r.Fingerprint
		return rival, nil
	}
	if old, ok := m.kept[scope+"|"+key]; ok {
		return old, nil
	}
	if now != 1_700_000_000_000 {
		return domain.Remembered{}, domain.Errorf(domain.Internal, "now is %d", now)
	}
	m.kept[scope+"|"+key] = r
	return r, nil
}
