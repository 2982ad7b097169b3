package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/metrics"
	"github.com/parley-im/parley/persistence"
)

// Local is the HTTP API on a store, without listening anywhere: for commands that administer.
type Local struct {
	Handler http.Handler
	// AdminKey opens the handler; it is good for this value alone.
	AdminKey string

	lifecycle *lifecycle
}

// OpenLocal opens the configured store, bringing its schema up to date.
func OpenLocal(ctx context.Context, cfg configs.Config) (_ *Local, err error) {
	logger := slog.New(slog.DiscardHandler)
	l := &Local{lifecycle: &lifecycle{logger: logger}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	l.AdminKey = hex.EncodeToString(random[:])
	cfg.Admin.Key = l.AdminKey
	cfg.Identity.Issuers, cfg.Hook.URL = nil, "" // nobody logs in here
	ready := func(context.Context) error { return nil }
	p, err := build(ctx, cfg, metrics.New(metrics.BuildInfo{}), l.lifecycle, Options{Logger: logger}, ready, "")
	if err != nil {
		return nil, err
	}
	l.Handler = p.handler
	return l, nil
}

// Close closes the store.
func (l *Local) Close() error { return l.lifecycle.stop(context.Background()) }

// Migrate brings the configured store's schema up to date.
func Migrate(ctx context.Context, cfg configs.Config) (err error) {
	store, err := persistence.Open(ctx, persistence.Options{URL: cfg.Store.URL})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.Migrate(ctx)
}

// Migrations tells which migrations there are, and since when the configured store has them.
func Migrations(ctx context.Context, cfg configs.Config) (_ []persistence.Migration, err error) {
	store, err := persistence.Open(ctx, persistence.Options{URL: cfg.Store.URL})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.MigrationStatus(ctx)
}

// serverTLS reads the certificate of the TLS listener; nil if none is configured.
func serverTLS(c configs.TLS) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil //nolint:nilnil // no TLS is a valid answer
	}
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("tls.cert and tls.key: %w", err)
	}
	out := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if c.ClientCA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("tls.clientCa: %w", err)
	}
	out.ClientCAs, out.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("tls.clientCa: no certificate in PEM form")
	}
	return out, nil
}
