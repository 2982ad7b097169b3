package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/configs"
)

type demoCommand struct {
	Store string `help:"Store to use instead of a SQLite file that is thrown away, for instance postgres://…" env:"PARLEY_STORE_URL" placeholder:"URL"`
	Keep  bool   `help:"Leave the gateway running afterwards, with lines for mosquitto_sub and mosquitto_pub to try."`
}

// demo is the stage: a gateway of its own, and a narrator.
type demo struct {
	ctx     context.Context
	out     io.Writer
	addrs   app.Addrs
	backend *api
	began   time.Time
}

// Run plays the demo.
func (c *demoCommand) Run(e *environment) (err error) {
	dir, err := os.MkdirTemp("", "parley-demo-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := configs.Default()
	cfg.MQTT.TCP, cfg.MQTT.WS, cfg.HTTP.Address, cfg.Metrics.Address = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Store.URL = "sqlite://" + filepath.Join(dir, "parley.db")
	if c.Store != "" {
		cfg.Store.URL = c.Store
	}
	cfg.Admin.Key = "demo-" + strings.ReplaceAll(time.Now().UTC().Format("150405.000000"), ".", "")

	a, err := app.New(e.ctx, cfg, app.Options{
		Logger:  slog.New(slog.NewTextHandler(e.errOut, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Version: version, Commit: commit,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(e.ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()

	d := &demo{ctx: running, out: e.out, addrs: a.Addrs(), began: time.Now()}
	d.backend = &api{base: "http://" + d.addrs.HTTP, key: cfg.Admin.Key, client: http.DefaultClient}
	if err := d.play(cfg); err != nil {
		return err
	}
	if c.Keep {
		return d.keep(e.ctx)
	}
	return nil
}

// title begins a scene.
func (d *demo) title(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, "\n%s\n", fmt.Sprintf(format, args...))
}

// say tells who does or sees what.
func (d *demo) say(who, format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, "  %5.0f ms  %-8s %s\n", float64(time.Since(d.began).Microseconds())/1000, who, fmt.Sprintf(format, args...))
}

const (
	alice = "alice@chat.acme"
	bob   = "bob@chat.acme"
)

// play is the whole story. Every line that it prints comes from an answer of the gateway.
func (d *demo) play(cfg configs.Config) error {
	kind, _, _ := strings.Cut(cfg.Store.URL, ":")
	d.title("A gateway starts: MQTT on %s, HTTP on %s, store %s.", d.addrs.MQTT, d.addrs.HTTP, kind)

	d.title("A backend prepares things over HTTP.")
	if err := d.prepare(); err != nil {
		return err
	}

	d.title("Two clients log in over MQTT and listen to all of their conversations.")
	a, err := dialV5(d.ctx, d.addrs.MQTT, alice, "alice's password", "alice-laptop")
	if err != nil {
		return err
	}
	defer a.close()
	d.say("alice", "is connected with MQTT 5")
	phone := "bob-phone-" + d.began.UTC().Format("150405.000") // a phone of its own each time, on a store that is kept
	b, _, err := dialV3(d.ctx, d.addrs.MQTT, bob, "bob's password", phone)
	if err != nil {
		return err
	}
	defer func() { b.close() }()
	d.say("bob", "is connected with MQTT 3.1.1, in a session that outlives its connection")

	d.title("Alice creates a conversation with a command; the answer comes back on her replies topic.")
	var created struct {
		Conversation struct {
			UUID string
		}
	}
	if err := a.command(d.ctx, "createConversation", map[string]any{
		"title": "Lunch", "participants": []map[string]string{{"username": bob}},
	}, &created); err != nil {
		return err
	}
	id := created.Conversation.UUID
	d.say("alice", "has conversation %s", id)
	if err := d.hear("alice", a); err != nil {
		return err
	}
	if err := d.hear("bob", b); err != nil {
		return err
	}

	d.title("They talk. Every acknowledgement means: committed, and this is its number.")
	for _, line := range []struct {
		name string
		from talker
		text string
	}{{"alice", a, "Lunch at noon?"}, {"bob", b, "Yes! The usual place?"}, {"alice", a, "The usual place."}} {
		seq, err := line.from.send(d.ctx, id, line.text)
		if err != nil {
			return err
		}
		if seq > 0 {
			d.say(line.name, "PUBACK: event %d is committed", seq)
		} else {
			d.say(line.name, "PUBACK: committed")
		}
		if err := d.hear("alice", a); err != nil {
			return err
		}
		if err := d.hear("bob", b); err != nil {
			return err
		}
	}

	d.title("Bob enters a tunnel: his connection breaks. Alice goes on talking.")
	last := b.lastSeq()
	b.cut()
	d.say("bob", "is gone; the last event he saw is %d", last)
	for _, text := range []string{"They have soup today.", "Bob?"} {
		seq, err := a.send(d.ctx, id, text)
		if err != nil {
			return err
		}
		d.say("alice", "PUBACK: event %d is committed", seq)
		if err := d.hear("alice", a); err != nil {
			return err
		}
	}

	d.title("Bob is back. His session is still there: what he missed comes first, then he is live again.")
	b, present, err := dialV3(d.ctx, d.addrs.MQTT, bob, "bob's password", phone)
	if err != nil {
		return err
	}
	if !present {
		return errors.New("bob's session is gone")
	}
	for next := last + 1; next <= last+2; {
		ev, err := b.next(d.ctx)
		switch {
		case err != nil:
			return fmt.Errorf("bob was not given event %d: %w", next, err)
		case ev.Seq <= last:
			d.say("bob", "comes again: %s (the tunnel has swallowed his acknowledgement)", ev)
		case ev.Seq != next:
			return fmt.Errorf("bob was given event %d where %d was due", ev.Seq, next)
		default:
			d.say("bob", "catches up:  %s", ev)
			next++
		}
	}
	if _, err := b.send(d.ctx, id, "Tunnel. Soup sounds good!"); err != nil {
		return err
	}
	if err := d.hear("bob", b); err != nil {
		return err
	}
	if err := d.hear("alice", a); err != nil {
		return err
	}
	return d.lookBack(id)
}

// prepare creates two users over HTTP.
func (d *demo) prepare() error {
	for _, u := range []struct{ username, name, password string }{
		{alice, "Alice", "alice's password"}, {bob, "Bob", "bob's password"},
	} {
		var answer struct {
			User struct{ UserID int64 }
		}
		err := d.backend.call(d.ctx, http.MethodPost, "/v1/users", map[string]any{
			"username": u.username, "displayName": u.name, "password": u.password,
		}, &answer)
		if err != nil && !strings.HasPrefix(err.Error(), "already-exists") { // a store that saw the demo before
			return err
		}
		d.say("backend", "POST /v1/users: %s", u.username)
	}
	return nil
}

// lookBack lets the backend look users up and fetch the history.
func (d *demo) lookBack(id string) error {
	d.title("The backend looks users up, says something itself, and fetches the history over HTTP.")
	var found struct {
		Users []struct {
			UserID                int64
			Username, DisplayName string
		}
	}
	query := url.Values{"username": {alice, bob}}
	if err := d.backend.call(d.ctx, http.MethodGet, "/v1/users?"+query.Encode(), nil, &found); err != nil {
		return err
	}
	for _, u := range found.Users {
		d.say("backend", "user %d is %s, %s", u.UserID, u.Username, u.DisplayName)
	}
	if err := d.backend.call(d.ctx, http.MethodPost, "/v1/conversations/"+id+"/messages", map[string]any{
		"text": "A table for two is reserved at 12:00.",
	}, nil); err != nil {
		return err
	}
	var history struct {
		Events   []event
		From, To int64
	}
	if err := d.backend.call(d.ctx, http.MethodGet, "/v1/conversations/"+id+"/events?from=1&count=100", nil, &history); err != nil {
		return err
	}
	d.say("backend", "GET /v1/conversations/…/events: %d to %d", history.From, history.To)
	for i, ev := range history.Events {
		if ev.Seq != int64(i+1) {
			return fmt.Errorf("the history has a gap: event %d is number %d", i+1, ev.Seq)
		}
		d.say("", "  %s", ev)
	}
	d.title("%d events, no gap, each committed before it was acknowledged.", len(history.Events))
	return nil
}

// hear waits for the next event and prints it.
func (d *demo) hear(name string, t talker) error {
	ev, err := t.next(d.ctx)
	if err != nil {
		return fmt.Errorf("%s heard nothing: %w", name, err)
	}
	d.say(name, "receives     %s", ev)
	return nil
}

// keep leaves the gateway running and prints lines that work as they are.
func (d *demo) keep(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.addrs.MQTT)
	if err != nil {
		return err
	}
	var created struct {
		Conversation struct{ UUID string }
	}
	if err := d.backend.call(d.ctx, http.MethodPost, "/v1/conversations", map[string]any{
		"title": "Playground", "participants": []map[string]string{{"username": alice}, {"username": bob}},
	}, &created); err != nil {
		return err
	}
	login := func(user, password string) string {
		return fmt.Sprintf("-h %s -p %s -q 1 -u %s -P %q", host, port, user, password)
	}
	_, _ = fmt.Fprintf(d.out, `
The gateway goes on until you press Ctrl-C. Listen as Bob in one terminal:

  mosquitto_sub %[1]s -t 'conversations/+/events' -t 'users/%[2]s/inbox'

and talk as Alice in another:

  mosquitto_pub %[3]s -t 'conversations/%[4]s/messages' -m '{"text":"Hello, Bob!"}'

A command, and where its answer arrives:

  mosquitto_sub %[3]s -t 'users/%[5]s/replies'
  mosquitto_pub %[3]s -t 'commands/getMe' -m '{"requestId":"1"}'

Over HTTP:

  curl -H 'Authorization: Bearer %[6]s' 'http://%[7]s/v1/conversations/%[4]s/events?from=1&count=100'

Documentation of the HTTP API: http://%[7]s/docs    Metrics: http://%[8]s/metrics
`, login(bob, "bob's password"), bob, login(alice, "alice's password"), created.Conversation.UUID, alice,
		d.backend.key, d.addrs.HTTP, d.addrs.Metrics)
	<-ctx.Done()
	return nil
}
