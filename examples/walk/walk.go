// Package walk is what the examples share: a narrator that shows the reader each topic and each JSON text that goes over the
// wire, clients of MQTT 5 and 3.1.1 and of HTTP that do nothing but what any client library can do, and checks that end an
// example where the gateway answers anything else than the example says.
//
// It knows nothing of Parley but docs/protocol.md: no package of the gateway is imported here, so that what the examples do
// can be done in any language.
package walk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// patience is how long a client waits for what must come.
const patience = 30 * time.Second

// M is a JSON object.
type M = map[string]any

// Gateway says where a running gateway is.
type Gateway struct {
	// HTTP is the base URL of its HTTP API, MQTT the host and port of its TCP listener.
	HTTP, MQTT string
	// AdminKey makes the example's account.
	AdminKey string
}

// Stage is what an example happens on: the narrator, and the gateway. An example is one goroutine.
//
// Its methods, and those of [Client] and [Backend], end the example when the gateway does not answer, or answers otherwise than
// expected, like the Fatal of a test: a story in which each step needs the one before has no other way to go on.
type Stage struct {
	// Account is an account of this run's own: an example may be played on any gateway, as often as one likes.
	Account string

	ctx     context.Context //nolint:containedctx // a stage lives as long as one call of Play
	out     io.Writer
	gateway Gateway
	section int
	clients []*Client
	heard   map[string]int // events, signals and notices taken, by type
}

// ended carries the reason through the panic that ends an example.
type ended struct{ reason error }

// Run plays an example on the gateway that the command line names.
func Run(ctx context.Context, args []string, out io.Writer, name string, tell func(*Stage)) error {
	var g Gateway
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&g.HTTP, "http", "http://127.0.0.1:8080", "base `URL` of the gateway's HTTP API")
	flags.StringVar(&g.MQTT, "mqtt", "127.0.0.1:1883", "`host:port` of the gateway's MQTT listener")
	flags.StringVar(&g.AdminKey, "key", "", "admin `key` (default: $PARLEY_ADMIN_KEY)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if g.AdminKey == "" { // not a default of the flag: those are printed by -h
		g.AdminKey = os.Getenv("PARLEY_ADMIN_KEY")
	}
	if g.AdminKey == "" {
		return errors.New("no admin key: start a gateway with `PARLEY_ADMIN_KEY=… bin/parley serve`, and give the same key to this example")
	}
	return Play(ctx, out, g, name, tell)
}

// Play plays an example. Its error says where the gateway did not behave as the example says.
func Play(ctx context.Context, out io.Writer, g Gateway, name string, tell func(*Stage)) (err error) {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails, by its documentation
	s := &Stage{Account: name + "-" + hex.EncodeToString(random), ctx: ctx, out: out, gateway: g, heard: make(map[string]int)}
	defer func() {
		for _, c := range s.clients {
			c.close()
		}
		switch r := recover().(type) {
		case nil:
		case ended:
			err = r.reason
		default:
			panic(r)
		}
	}()
	tell(s)
	for _, c := range s.clients {
		c.nothingLeft()
	}
	return nil
}

// fail ends the example.
func (s *Stage) fail(format string, args ...any) {
	panic(ended{fmt.Errorf("section %d: "+format, append([]any{s.section}, args...)...)})
}

// Section begins a section: a heading, and what it is about.
func (s *Stage) Section(title, about string) {
	s.section++
	heading := fmt.Sprintf("%d. %s", s.section, title)
	s.print("\n%s\n%s\n%s\n", heading, strings.Repeat("=", len(heading)), about)
}

// Say explains what comes next.
func (s *Stage) Say(text string) { s.print("\n%s\n", text) }

// Quietly does what would only show the reader once more what it has seen. It is checked all the same.
func (s *Stage) Quietly(what string, do func()) {
	s.print("  (not shown: %s)\n", what)
	out := s.out
	s.out = io.Discard
	defer func() { s.out = out }()
	do()
}

// Check ends the example unless the claim is true, and prints it if it is.
func (s *Stage) Check(holds bool, claim string, args ...any) {
	claim = fmt.Sprintf(claim, args...)
	if !holds {
		s.fail("not so: %s", claim)
	}
	s.print("    ✓ %s\n", claim)
}

// Heard tells how many events, signals and notices of a type all clients together have taken.
func (s *Stage) Heard(kind string) int { return s.heard[kind] }

// shown prints what went over the wire: who, which way, where, and what.
func (s *Stage) shown(who, arrow, where string, payload []byte) {
	s.print("  %-8s %s %s\n", who, arrow, where)
	switch {
	case len(payload) == 0:
	case utf8.Valid(payload):
		s.print("    %s\n", payload)
	default:
		s.print("    (%d bytes that are no text)\n", len(payload))
	}
}

func (s *Stage) print(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil {
		panic(ended{err})
	}
}

func (s *Stage) encode(v any) []byte {
	if raw, ok := v.([]byte); ok {
		return raw
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // for the reader's sake
	if err := e.Encode(v); err != nil {
		s.fail("%v", err)
	}
	return bytes.TrimSpace(b.Bytes())
}

func (s *Stage) decode(payload []byte, v any) {
	if v == nil {
		return
	}
	if err := json.Unmarshal(payload, v); err != nil {
		s.fail("%v in %s", err, payload)
	}
}

// Same reports whether two JSON values say the same.
func Same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
