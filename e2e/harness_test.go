package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/configs"
)

// patience is how long a test waits for something that must happen.
const patience = 30 * time.Second

// adminKey is the admin key of every gateway here.
const adminKey = "the-admin-key-of-the-tests"

// store is one of the two kinds of store.
type store struct {
	name string
}

// empty gives the URL of a new store.
func (s store) empty(tb testing.TB) string {
	tb.Helper()
	if s.name == "sqlite" {
		return "sqlite://" + filepath.Join(tb.TempDir(), "parley.db")
	}
	return postgresServer(tb).NewDatabase(tb)
}

// onBothStores runs a test on SQLite and on Postgres.
func onBothStores(t *testing.T, f func(t *testing.T, s store)) {
	t.Helper()
	t.Parallel()
	for _, s := range []store{{"sqlite"}, {"postgres"}} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f(t, s)
		})
	}
}

// inWorlds runs a test on both stores, each time in an account of its own.
func inWorlds(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	onBothStores(t, func(t *testing.T, s store) { f(t, newWorld(t, sharedGateway(t, s))) })
}

// byVersion runs a test on both stores and with both versions of MQTT.
func byVersion(t *testing.T, f func(t *testing.T, w *world, version byte)) {
	t.Helper()
	onBothStores(t, func(t *testing.T, s store) {
		for _, version := range []byte{4, 5} {
			t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
				t.Parallel()
				f(t, newWorld(t, sharedGateway(t, s)), version)
			})
		}
	})
}

// gateway is a gateway that runs in this process.
type gateway struct {
	cfg   configs.Config
	addrs app.Addrs
	stop  func() error
}

// testConfig is the configuration of a gateway on free ports whose passwords cost next to nothing.
func testConfig(storeURL string) configs.Config {
	cfg := configs.Default()
	cfg.Store.URL = storeURL
	cfg.MQTT.TCP, cfg.MQTT.WS, cfg.HTTP.Address, cfg.Metrics.Address = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Admin.Key = adminKey
	cfg.Login.Argon2Memory, cfg.Login.Argon2Iterations = 64, 1
	// What must end in how much time is for the tests of shutting down to say; the others may run on a busy machine.
	cfg.Shutdown.Timeout = patience - 5*time.Second
	return cfg
}

// begin starts a gateway.
func begin(ctx context.Context, cfg configs.Config, o app.Options) (*gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a, err := app.New(ctx, cfg, o)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(running) }()
	g := &gateway{cfg: cfg, addrs: a.Addrs()}
	g.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("the gateway does not stop")
		}
	})
	ready := func() error {
		_, err := g.api(adminKey).try(ctx, "GET", "/readyz", nil)
		return err
	}
	if err := until(ctx, ready); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

// start starts a gateway of the test's own.
func start(tb testing.TB, storeURL string, changes ...func(*configs.Config)) *gateway {
	tb.Helper()
	cfg := testConfig(storeURL)
	for _, change := range changes {
		change(&cfg)
	}
	g, err := begin(tb.Context(), cfg, app.Options{Version: "e2e", Commit: "0123456"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := g.stop(); err != nil {
			tb.Errorf("stopping the gateway: %v", err)
		}
	})
	return g
}

// until calls f until it succeeds, and gives its last error when that takes too long.
func until(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not in time: %w", err)
		case <-tick.C:
		}
	}
}

// eventually is until for tests.
func eventually(tb testing.TB, what string, f func() error) {
	tb.Helper()
	if err := until(tb.Context(), f); err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// worlds counts the accounts that were made.
var worlds atomic.Int64

// world is an account of a test's own, with a service.
type world struct {
	*gateway
	account string
	// admin and service call the HTTP API.
	admin, service api
	// kept and acks are connections of tables of tests, see sameCallers.
	kept []caller
	acks *device
}

// user is a user of the world's account.
type user struct {
	ID       int64  `json:"userId"`
	Name     string `json:"username"`
	password string
}

func (u user) inbox() string         { return "users/" + u.Name + "/inbox" }
func (u user) replies() string       { return "users/" + u.Name + "/replies" }
func (u user) ref() map[string]any   { return map[string]any{"username": u.Name} }
func (u user) refID() map[string]any { return map[string]any{"userId": u.ID} }

// refs names users as participants.
func refs(users ...user) []map[string]any {
	list := make([]map[string]any, len(users))
	for i, u := range users {
		list[i] = u.ref()
	}
	return list
}

func newWorld(tb testing.TB, g *gateway) *world {
	tb.Helper()
	w := &world{gateway: g, account: fmt.Sprintf("acme%d", worlds.Add(1)), admin: g.api(adminKey)}
	var made struct{ Key string }
	w.admin.ok(tb, "POST", "/v1/services", map[string]any{"account": w.account, "name": "Billing"}).into(tb, &made)
	w.service = g.api(made.Key)
	return w
}

// user creates a user with a password.
func (w *world) user(tb testing.TB, name string) user {
	tb.Helper()
	u := user{password: name + "'s password"}
	var made struct{ User *user }
	made.User = &u
	w.service.ok(tb, "POST", "/v1/users", map[string]any{
		"username": name + "@chat." + w.account, "password": u.password,
	}).into(tb, &made)
	if u.ID <= 0 {
		tb.Fatalf("user %s has number %d", name, u.ID)
	}
	return u
}

func (w *world) users(tb testing.TB, names ...string) []user {
	tb.Helper()
	list := make([]user, len(names))
	for i, name := range names {
		list[i] = w.user(tb, name)
	}
	return list
}

// token gives an access token of the user.
func (w *world) token(tb testing.TB, u user) string {
	tb.Helper()
	var made struct{ AccessToken string }
	w.service.ok(tb, "POST", "/v1/users/"+u.Name+"/tokens", map[string]any{}).into(tb, &made)
	return made.AccessToken
}

// as gives the HTTP API as the user.
func (w *world) as(tb testing.TB, u user) api {
	tb.Helper()
	return w.api(w.token(tb, u))
}

// conversation lets the first user create a conversation with the others.
func (w *world) conversation(tb testing.TB, users ...user) string {
	tb.Helper()
	return w.conversationWith(tb, nil, users...)
}

func (w *world) conversationWith(tb testing.TB, more map[string]any, users ...user) string {
	tb.Helper()
	params := map[string]any{"participants": refs(users[1:]...)}
	maps.Copy(params, more)
	var made struct{ Conversation conversation }
	w.as(tb, users[0]).ok(tb, "POST", "/v1/conversations", params).into(tb, &made)
	return made.Conversation.UUID
}

// log gives the whole log of a conversation, as the service reads it, and checks that it has no gap.
func (w *world) log(tb testing.TB, conversation string) []event {
	tb.Helper()
	list, err := readLog(tb.Context(), w.service, conversation)
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func readLog(ctx context.Context, a api, conversation string) ([]event, error) {
	var head struct {
		Conversation struct{ LastSeq int64 }
	}
	res, err := a.try(ctx, "GET", "/v1/conversations/"+conversation, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(res.body, &head); err != nil {
		return nil, err
	}
	var list []event
	for next := int64(1); next <= head.Conversation.LastSeq; next = int64(len(list)) + 1 {
		var page struct{ Events []event }
		res, err := a.try(ctx, "GET", fmt.Sprintf("/v1/conversations/%s/events?from=%d&count=100", conversation, next), nil)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(res.body, &page); err != nil {
			return nil, err
		}
		if len(page.Events) == 0 {
			return nil, fmt.Errorf("no events from %d on, though the last is %d", next, head.Conversation.LastSeq)
		}
		list = append(list, page.Events...)
	}
	for i, ev := range list {
		if ev.Seq != int64(i+1) {
			return nil, fmt.Errorf("the log of %s has a gap: event %d follows %d", conversation, ev.Seq, i)
		}
	}
	return list, nil
}
