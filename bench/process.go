package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// server is a gateway or a bare broker in a process of its own.
type server struct {
	cmd  *exec.Cmd
	mqtt string
	http string
	// metrics is where the gateway's are.
	metrics string
	key     string
	log     *os.File
}

// startGateway starts this very binary as `parley serve` on free ports.
func startGateway(ctx context.Context, dir, storeURL string) (*server, error) {
	s := &server{key: "bench-admin-key-0123456789abcdef"}
	addrs, err := freeAddresses(ctx, 4)
	if err != nil {
		return nil, err
	}
	s.mqtt, s.http, s.metrics = addrs[0], addrs[1], addrs[2]
	env := append(os.Environ(),
		"PARLEY_STORE_URL="+storeURL, "PARLEY_MQTT_TCP="+s.mqtt, "PARLEY_HTTP_ADDRESS="+s.http,
		"PARLEY_METRICS_ADDRESS="+s.metrics, "PARLEY_MQTT_WS="+addrs[3], "PARLEY_ADMIN_KEY="+s.key,
		"PARLEY_LOG_LEVEL=warn",
	)
	if err := s.start(ctx, dir, env, "serve"); err != nil {
		return nil, err
	}
	return s, s.await(ctx, func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+"/readyz", nil)
		if err != nil {
			return false
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		return errors.Join(res.Body.Close()) == nil && res.StatusCode == http.StatusOK
	})
}

// startBareBroker starts the broker library alone, without any of Parley, as another process.
func startBareBroker(ctx context.Context, dir string) (*server, error) {
	addrs, err := freeAddresses(ctx, 1)
	if err != nil {
		return nil, err
	}
	s := &server{mqtt: addrs[0]}
	if err := s.start(ctx, dir, os.Environ(), "bench", "--bare-broker", s.mqtt); err != nil {
		return nil, err
	}
	return s, s.await(ctx, func() bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.mqtt)
		return err == nil && conn.Close() == nil
	})
}

func (s *server) start(ctx context.Context, dir string, env []string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if s.log, err = os.CreateTemp(dir, "server-*.log"); err != nil {
		return err
	}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), self, args...)
	s.cmd.Env, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = env, dir, s.log, s.log
	return s.cmd.Start()
}

// await polls until the server answers; a server that has ended says why in its log.
func (s *server) await(ctx context.Context, ready func() bool) error {
	exited := make(chan error, 1)
	go func() { exited <- s.cmd.Wait() }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ready() {
		select {
		case err := <-exited:
			text, _ := os.ReadFile(s.log.Name())
			return fmt.Errorf("the server ended early (%w): %s", err, text)
		case <-deadline:
			return errors.Join(errors.New("the server did not become ready within 30 s"), s.cmd.Process.Kill())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.cmd.Process.Kill())
		case <-tick.C:
		}
	}
	return nil
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	// Nothing is measured any more: a server that does not end by itself is ended.
	for range 100 {
		if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	_ = s.cmd.Process.Kill()
	_ = s.log.Close()
}

// rss gives the resident memory of the server in bytes.
func (s *server) rss() (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpu gives the processor time that the server has used.
func (s *server) cpu() time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every Linux
}

// metric gives the sum of a metric over its labels.
func (s *server) metric(ctx context.Context, name string) (sum float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, nil
}

func freeAddresses(ctx context.Context, n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// call makes an HTTP request to the gateway as its administrator.
func (s *server) call(ctx context.Context, method, path string, body, result any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.http+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}

// population is users with tokens, and conversations of them.
type population struct {
	names         []string
	tokens        []string
	conversations []string
	members       [][]int // indexes of users, per conversation
}

// scene is what a scenario begins with: a gateway, and whom it has to do with.
type scene struct {
	*server
	*population
	url, dir string
}

// scene starts a gateway on an empty store and populates it. What that wrote is on the disks.
func (st *Store) scene(ctx context.Context, users int, members [][]int) (*scene, error) {
	url, dir, err := st.fresh(ctx)
	if err != nil {
		return nil, err
	}
	s, err := startGateway(ctx, dir, url)
	if err != nil {
		return nil, err
	}
	p, err := s.populate(ctx, users, members)
	if err == nil {
		err = st.settle(ctx)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return &scene{s, p, url, dir}, nil
}

// populate creates users without passwords (they log in with tokens) and conversations.
func (s *server) populate(ctx context.Context, users int, members [][]int) (*population, error) {
	p := &population{
		names: make([]string, users), tokens: make([]string, users),
		conversations: make([]string, len(members)), members: members,
	}
	run := strconv.FormatInt(time.Now().UnixNano()%1e9, 36)
	group, sub := errgroup.WithContext(ctx)
	group.SetLimit(16)
	var mu sync.Mutex
	for i := range users {
		group.Go(func() error {
			name := fmt.Sprintf("u%d-%s@bench.bench", i, run)
			if err := s.call(sub, http.MethodPost, "/v1/users", map[string]any{"username": name}, nil); err != nil {
				return err
			}
			var t struct {
				AccessToken string `json:"accessToken"`
			}
			if err := s.call(sub, http.MethodPost, "/v1/users/"+name+"/tokens", map[string]any{}, &t); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.names[i], p.tokens[i] = name, t.AccessToken
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	group, sub = errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, m := range members {
		group.Go(func() error {
			type ref struct {
				Username string `json:"username"`
			}
			var refs []ref
			for _, u := range m {
				refs = append(refs, ref{p.names[u]})
			}
			var answer struct {
				Conversation struct {
					UUID string `json:"uuid"`
				} `json:"conversation"`
			}
			err := s.call(sub, http.MethodPost, "/v1/conversations", map[string]any{"participants": refs}, &answer)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.conversations[i] = answer.Conversation.UUID
			return nil
		})
	}
	return p, group.Wait()
}

// connect logs in a user's device and subscribes it to everything of its conversations.
func (s *scene) connect(ctx context.Context, dial dialer, user int) (*client, error) {
	return dial(ctx, s.mqtt, "bench-"+strconv.Itoa(user), s.names[user], s.tokens[user], "conversations/+/events")
}
