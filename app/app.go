// Package app builds a gateway from its parts and runs it: the one place where all of them meet. Commands, end-to-end
// tests and benchmarks use it alike.
//
// [New] reads top to bottom in the order in which things depend on one another, and registers how to undo each step
// right after it; [App.Stop] does so in the opposite order. Ports are bound in New, so that [App.Addrs] is right before
// anything is served and tests may ask for port 0.
package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"golang.org/x/sync/errgroup"

	"github.com/parley-im/parley/bridge"
	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/gateway"
	"github.com/parley-im/parley/hooks"
	"github.com/parley-im/parley/metrics"
	"github.com/parley-im/parley/persistence"
)

// Options are what is not configuration. The zero value is fine.
type Options struct {
	Logger          *slog.Logger
	Version, Commit string
	// NewAdminKey gets the admin key when an empty store made one necessary; nil: it is lost, and only a configured
	// key works.
	NewAdminKey func(key string)
}

// App is a gateway with all its parts. It is made by [New], run by [App.Run], and may be stopped at any time.
type App struct {
	cfg       configs.Config
	logger    *slog.Logger
	lifecycle *lifecycle
	parts     *parts
	broker    *broker.Server
	api       *endpoint
	metrics   *endpoint
	ready     atomic.Bool
}

// Addrs are the addresses that the gateway listens on; empty: not at all.
type Addrs struct {
	MQTT, WebSocket, TLS, HTTP, Metrics string
}

// parts are what also works without anybody being connected: the store and what stands on it.
type parts struct {
	registry *metrics.Registry
	store    *persistence.Store
	accounts *gateway.Accounts
	gateway  *gateway.Gateway
	handler  http.Handler
}

// New builds the gateway and binds its ports. Nothing is served yet. When it fails, nothing is left behind.
func New(ctx context.Context, cfg configs.Config, o Options) (_ *App, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &App{cfg: cfg, logger: o.Logger, lifecycle: &lifecycle{logger: o.Logger}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.lifecycle.stop(context.WithoutCancel(ctx)))
		}
	}()

	registry := metrics.New(metrics.BuildInfo{Version: o.Version, Commit: o.Commit})
	if cfg.Metrics.Address != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", registry.Handler())
		if a.metrics, err = a.listen(ctx, "metrics", cfg.Metrics.Address, mux); err != nil {
			return nil, err
		}
	}
	// The port is bound first: URLs of content name it.
	listener, base, err := a.bindHTTP(ctx)
	if err != nil {
		return nil, err
	}
	a.parts, err = build(ctx, cfg, registry, a.lifecycle, o, a.readiness, base)
	if err != nil {
		return nil, err
	}
	if err := a.connectivity(); err != nil {
		return nil, err
	}
	if cfg.HTTP.Address != "" {
		a.api = a.serveOn(ctx, "http", listener, a.parts.handler)
	}

	// What stopping begins with: no new work, and everything taken answered.
	a.lifecycle.onStop("taking commands", func(ctx context.Context) error { return a.parts.gateway.Drain(ctx) })
	a.lifecycle.onStop("accepting connections", func(context.Context) error {
		a.broker.StopAccepting()
		return nil
	})
	a.lifecycle.onStop("readiness", func(context.Context) error {
		a.ready.Store(false)
		return nil
	})
	return a, nil
}

// build makes the store and what stands on it.
func build(
	ctx context.Context, cfg configs.Config, registry *metrics.Registry, l *lifecycle, o Options,
	ready func(context.Context) error, base string,
) (*parts, error) {
	p := &parts{registry: registry}
	store, err := persistence.Open(ctx, persistence.Options{
		URL: cfg.Store.URL, Logger: o.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	p.store = store
	l.onStop("store", func(context.Context) error { return store.Close() })
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	key, err := adminKey(ctx, cfg, store, o.NewAdminKey)
	if err != nil {
		return nil, err
	}

	issuers, service, err := external(cfg, l, o.Logger, registry)
	if err != nil {
		return nil, err
	}
	p.accounts, err = gateway.NewAccounts(store, store, store, gateway.AccountsOptions{
		Issuers: issuers, LoginService: service, ServiceParallel: cfg.Hook.Parallel, ServiceRemember: orNever(cfg.Hook.Remember),
		Password: gateway.Argon2{
			Memory: uint32(cfg.Login.Argon2Memory), Passes: uint32(cfg.Login.Argon2Iterations), Lanes: 1,
		},
		PasswordMost: gateway.Argon2{Memory: configs.MaxArgon2Memory, Passes: configs.MaxArgon2Iterations, Lanes: 16},
		Parallel:     cfg.Login.ParallelVerifications, AccessLife: cfg.Login.AccessTTL, RefreshLife: cfg.Login.RefreshTTL,
		MostLogins: cfg.Limits.Logins, AdminKey: &key, Registerer: registry,
		Ended:   func(who domain.Principal, byToken bool) { p.gateway.EndSessions(who, byToken, domain.NotWelcome()) },
		Changed: func(ctx context.Context, u domain.User) { p.gateway.UserChanged(ctx, u) },
	})
	if err != nil {
		return nil, err
	}
	limits := commandLimits(cfg)
	external, err := buildContent(ctx, cfg, store, base, registry, l, o.Logger)
	if err != nil {
		return nil, err
	}
	limits.ContentURL = base
	logs := make([]gateway.Log, 0, len(store.Logs()))
	for _, log := range store.Logs() {
		logs = append(logs, log)
	}
	var links domain.Links
	var contents bridge.Contents
	if external != nil {
		links, contents = external, external
	}
	p.gateway, err = gateway.New(gateway.Options{
		Links: links, Contents: store,
		Logs: logs, History: store, Sessions: store, Wills: store, Missed: store, Presence: store, Grace: cfg.Presence.Grace,
		Authenticator: p.accounts, Logins: p.accounts, Endings: p.accounts, Limits: limits,
		MessageRate: float64(cfg.Limits.MessagesPerSecond), CommandRate: float64(cfg.Limits.CommandsPerSecond),
		TransientRate: float64(cfg.Limits.TransientPerSecond),
		MaxSessions:   cfg.Limits.Sessions, MaxUserSessions: cfg.Limits.SessionsPerUser,
		MaxSubscriptions: cfg.Limits.Subscriptions, MaxMarked: cfg.Limits.DeliveredSignals, MaxDirectBytes: int(cfg.Limits.Waiting),
		MaxWaitingBytes: int64(cfg.Limits.WaitingTotal), MaxQueue: queuePerShard(cfg, len(logs)), Logger: o.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	l.onStop("gateway", func(context.Context) error {
		p.gateway.Close()
		return nil
	})

	later, err := buildSchedule(ctx, cfg, store, p.gateway, registry, l, o.Logger)
	if err != nil {
		return nil, err
	}
	p.handler, err = bridge.New(bridge.Options{
		Do: func(ctx context.Context, who domain.Principal, c domain.Command) (domain.Receipt, error) {
			return p.gateway.Do(ctx, who, c)
		},
		Accounts: p.accounts, Memory: store, Contents: contents, Schedules: later, Ready: ready, Version: o.Version, Commit: o.Commit,
		Limits: limits, Origins: cfg.HTTP.Origins, Logger: o.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	housekeeping(store, l, o.Logger)
	return p, nil
}

// connectivity makes the MQTT side: the broker with the hook that turns its packets into commands.
func (a *App) connectivity() error {
	cfg, g := a.cfg, a.parts.gateway
	tlsConfig, err := serverTLS(cfg.TLS)
	if err != nil {
		return err
	}
	a.broker, err = broker.New(broker.Options{
		TCP: cfg.MQTT.TCP, WS: cfg.MQTT.WS, TLS: cfg.MQTT.TLS, TLSConfig: tlsConfig,
		Limits: broker.Limits{
			PacketSize: int(cfg.Limits.PacketSize), ConnectTimeout: cfg.Limits.ConnectTimeout, WriteTimeout: cfg.Limits.WriteTimeout,
			Connections: cfg.Limits.Sessions, PerAddress: cfg.Limits.ConnectionsPerAddress,
		},
		Logger: a.logger, Registerer: a.parts.registry,
	})
	if err != nil {
		return err
	}
	a.lifecycle.onStop("broker", a.broker.Close)
	a.lifecycle.onStop("connections", func(context.Context) error {
		a.broker.DisconnectAll(domain.ShuttingDown())
		return nil
	})
	return a.broker.Use(hooks.New(hooks.Options{
		Connect: func(ctx context.Context, cl *mqtt.Client, hello domain.Hello) (hooks.Session, domain.Welcome, error) {
			conn := broker.ConnOf(cl)
			defer conn.Watch()()
			session, welcome, err := g.Connect(ctx, hello, conn)
			if err != nil {
				return nil, domain.Welcome{}, err
			}
			conn.Attach(session)
			return session, welcome, nil
		},
		Wire: a.broker, Limits: commandLimits(cfg), ReceiveMaximum: uint16(cfg.Limits.ReceiveMaximum),
		MaximumPacketSize: uint32(cfg.Limits.PacketSize), ConnectTimeout: cfg.Limits.ConnectTimeout,
		Logger: a.logger, Registerer: a.parts.registry,
	}))
}

// queuePerShard shares the commands that may wait among the committers.
func queuePerShard(cfg configs.Config, shards int) int {
	if cfg.Limits.Outstanding == 0 {
		return math.MaxInt
	}
	return max(cfg.Limits.Outstanding/shards, 1)
}

func commandLimits(cfg configs.Config) domain.Limits {
	return domain.Limits{
		MessageBytes: int(cfg.Limits.MessageSize), PartBytes: int(cfg.Limits.PartSize),
		TextChars: cfg.Limits.TextLength, Parts: cfg.Limits.Parts, Participants: cfg.Limits.Participants,
		Watched: cfg.Limits.Watched,
	}
}

// readiness says why the gateway should not get work now; nil: it should.
func (a *App) readiness(ctx context.Context) error {
	if !a.ready.Load() {
		return domain.Errorf(domain.Unavailable, "starting or shutting down")
	}
	return a.parts.store.Ping(ctx)
}

// Run serves until ctx ends or a part fails, and then stops.
func (a *App) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	for _, e := range []*endpoint{a.metrics, a.api} {
		if e != nil {
			group.Go(e.serve)
		}
	}
	a.broker.Serve()
	a.ready.Store(true)
	addrs := a.Addrs()
	a.logger.Info("serving", slog.String("mqtt", addrs.MQTT), slog.String("websocket", addrs.WebSocket),
		slog.String("tls", addrs.TLS), slog.String("http", addrs.HTTP), slog.String("metrics", addrs.Metrics))
	<-running.Done()
	a.logger.Info("stopping")
	stopped := a.Stop(context.WithoutCancel(ctx))
	return errors.Join(group.Wait(), stopped)
}

// Stop drains and ends everything within the configured time: what was accepted is committed and acknowledged, clients
// are told. It may be called before Run and more than once.
func (a *App) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Shutdown.Timeout)
	defer cancel()
	return a.lifecycle.stop(ctx)
}

// Addrs tells where the gateway listens.
func (a *App) Addrs() Addrs {
	listening := a.broker.Addrs()
	at := func(listener string) string {
		if addr, ok := listening[listener]; ok {
			return addr.String()
		}
		return ""
	}
	addrs := Addrs{MQTT: at("tcp"), WebSocket: at("ws"), TLS: at("tls")}
	if a.api != nil {
		addrs.HTTP = a.api.listener.Addr().String()
	}
	if a.metrics != nil {
		addrs.Metrics = a.metrics.listener.Addr().String()
	}
	return addrs
}

// endpoint is an HTTP server with its listener.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// httpFarewell is how long HTTP requests may take to end when the gateway stops; MQTT clients wait behind them.
const httpFarewell = 2 * time.Second

func (a *App) listen(ctx context.Context, name, address string, handler http.Handler) (*endpoint, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s.address: %w", name, err)
	}
	return a.serveOn(ctx, name, listener, handler), nil
}

// serveOn makes an HTTP server on a bound port.
func (a *App) serveOn(ctx context.Context, name string, listener net.Listener, handler http.Handler) *endpoint {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e := &endpoint{listener: listener, server: &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return running },
	}}
	a.lifecycle.onStop(name, func(ctx context.Context) error {
		// Commands were answered before. What still waits, a queue of logins for instance, need not hold up the rest.
		cancel()
		ctx, done := context.WithTimeout(ctx, httpFarewell)
		defer done()
		if e.server.Shutdown(ctx) != nil {
			_ = e.server.Close() // who is slow to ask, or to take the answer
		}
		_ = e.listener.Close() // the server does not know it before it serves
		return nil
	})
	return e
}

func (e *endpoint) serve() error {
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// adminKeySetting is where the store keeps the digest of the admin key that it was given first.
const adminKeySetting = "admin-key-sha256"

// adminKey gives the digest of the admin key: the configured one, else the store's, which an empty store gets now.
func adminKey(ctx context.Context, cfg configs.Config, store *persistence.Store, made func(string)) ([32]byte, error) {
	if cfg.Admin.Key != "" {
		return sha256.Sum256([]byte(cfg.Admin.Key)), nil
	}
	stored, ok, err := store.Setting(ctx, adminKeySetting)
	if err != nil {
		return [32]byte{}, err
	}
	if !ok {
		var random [24]byte
		_, _ = rand.Read(random[:]) // never fails, by its documentation
		key := "ak_" + hex.EncodeToString(random[:])
		sum := sha256.Sum256([]byte(key))
		var created bool
		if stored, created, err = store.InitSetting(ctx, adminKeySetting, sum[:]); err != nil {
			return [32]byte{}, err
		}
		if created && made != nil {
			made(key)
		}
	}
	if len(stored) != 32 {
		return [32]byte{}, errors.New("the store's admin key is damaged; set admin.key")
	}
	return [32]byte(stored), nil
}

// housekeeping removes what has expired from the store, now and then.
func housekeeping(store *persistence.Store, l *lifecycle, logger *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				if err := store.Cleanup(ctx, domain.Millis(now)); err != nil && ctx.Err() == nil {
					logger.Warn("cleaning up the store", slog.Any("error", err))
				}
			}
		}
	}()
	l.onStop("housekeeping", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}
