package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/parley-im/parley/app"
	"github.com/parley-im/parley/bench"
	"github.com/parley-im/parley/configs"
)

type serveCommand struct{}

// Run runs the gateway until the context ends, then drains it.
func (serveCommand) Run(e *environment) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	logger := newLogger(e, cfg)
	collectSeldom(spareMemory)
	a, err := app.New(e.ctx, cfg, app.Options{
		Logger: logger, Version: version, Commit: commit,
		// Printed, not logged: logs are kept and shipped, the key is for whoever sits here now.
		NewAdminKey: func(key string) {
			_, _ = fmt.Fprintf(e.out, "\n  A new store: this is its admin key, shown only now.\n\n      %s\n\n", key)
		},
	})
	if err != nil {
		return err
	}
	return a.Run(e.ctx)
}

func newLogger(e *environment, cfg configs.Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.Log.SlogLevel()}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.errOut, o))
	}
	return slog.New(slog.NewTextHandler(e.errOut, o))
}

type configCommand struct {
	Check configCheck `cmd:"" help:"Report everything that is wrong with the configuration."`
	Show  configShow  `cmd:"" help:"Print the configuration in effect, without its secrets."`
}

type configCheck struct{}

// Run checks the configuration.
func (configCheck) Run(e *environment) error {
	if _, err := e.load(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.out, "The configuration is fine.")
	return err
}

type configShow struct{}

// Run prints the configuration.
func (configShow) Run(e *environment) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(e.out, cfg.Show())
	return err
}

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Bring the store's schema up to date. serve does so by itself."`
	Status migrateStatus `cmd:"" help:"Tell which migrations the store has."`
}

type migrateUp struct{}

// Run migrates the store.
func (migrateUp) Run(e *environment) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	if err := app.Migrate(e.ctx, cfg); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.out, "The schema is up to date.")
	return err
}

type migrateStatus struct{}

// Run lists the migrations.
func (migrateStatus) Run(e *environment) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	list, err := app.Migrations(e.ctx, cfg)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "VERSION\tAPPLIED\tNAME")
	for _, m := range list {
		applied := "no"
		if m.Applied {
			applied = "yes"
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\n", m.Version, applied, m.Name)
	}
	return w.Flush()
}

type benchCommand struct {
	Scenarios  []string      `arg:"" optional:"" help:"What to measure: send, group, latency, cursors, catchup, idle. Default: all."`
	Store      string        `help:"Store to measure: postgres (a private server is started) or sqlite." enum:"postgres,sqlite" default:"postgres"`
	Duration   time.Duration `help:"How long each load runs after its warm-up." default:"10s"`
	Idle       int           `help:"Sessions of the idle scenario." default:"5000"`
	JSON       string        `help:"Also write the figures to this file." placeholder:"FILE"`
	BareBroker string        `help:"Serve the broker library alone at this address; the comparison of the group scenario." hidden:""`
	Crowd      string        `help:"Be the devices of the catchup scenario that this file names." hidden:""`
}

// Run measures.
func (c *benchCommand) Run(e *environment) error {
	if c.BareBroker != "" {
		return bench.BareBroker(e.ctx, c.BareBroker)
	}
	if c.Crowd != "" {
		return bench.Crowd(e.ctx, c.Crowd, e.out)
	}
	for _, s := range c.Scenarios {
		if known := []string{"send", "group", "latency", "cursors", "catchup", "idle"}; !slices.Contains(known, s) {
			return usageError{fmt.Errorf("no scenario %q; there are %v", s, known)}
		}
	}
	st, err := bench.OpenStore(e.ctx, c.Store)
	if err != nil {
		return err
	}
	report, err := bench.Run(e.ctx, bench.Options{
		Scenarios: c.Scenarios, Duration: c.Duration, Idle: c.Idle, Progress: e.out,
	}, st)
	err = errors.Join(err, st.Close())
	if err != nil {
		return err
	}
	if c.JSON != "" {
		if err := os.WriteFile(c.JSON, report.JSON(), 0o600); err != nil {
			return err
		}
	}
	return report.Missed()
}
