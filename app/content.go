package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/content"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/metrics"
	"github.com/parley-im/parley/persistence"
)

// bindHTTP binds the port of the HTTP API, if it is configured, and gives the URL where clients reach it.
func (a *App) bindHTTP(ctx context.Context) (listener net.Listener, base string, err error) {
	if a.cfg.HTTP.Address == "" {
		return nil, "", nil
	}
	listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.HTTP.Address)
	if err != nil {
		return nil, "", fmt.Errorf("http.address: %w", err)
	}
	a.lifecycle.onStop("http port", func(context.Context) error {
		_ = listener.Close() // mostly it was closed by the server on it
		return nil
	})
	if a.cfg.HTTP.URL != "" {
		return listener, strings.TrimRight(a.cfg.HTTP.URL, "/"), nil
	}
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return listener, "http://" + net.JoinHostPort(host, port), nil
}

// contentKeySetting is where the store keeps the key that signs URLs of content.
const contentKeySetting = "content-url-key"

// buildContent makes what keeps external content; nil where there is no HTTP API to reach it by.
func buildContent(
	ctx context.Context, cfg configs.Config, store *persistence.Store, base string, registry *metrics.Registry, l *lifecycle,
	logger *slog.Logger,
) (*content.Service, error) {
	if base == "" {
		return nil, nil //nolint:nilnil // none is a valid answer
	}
	var fresh [32]byte
	_, _ = rand.Read(fresh[:]) // never fails, by its documentation
	key, _, err := store.InitSetting(ctx, contentKeySetting, fresh[:])
	if err != nil {
		return nil, err
	}
	if len(key) != len(fresh) {
		return nil, errors.New("the store's key for URLs of content is damaged")
	}
	blobs, err := openBlobs(ctx, cfg, l)
	if err != nil {
		return nil, err
	}
	s, err := content.New(content.Options{
		Store: store, Blobs: blobs, URL: base, Key: [32]byte(key), Life: cfg.Content.URLTTL, MaxSize: int64(cfg.Content.MaxSize),
		Quota:  domain.ContentQuota{Bytes: int64(cfg.Content.Quota), Uploads: cfg.Content.Uploads},
		Unused: cfg.Content.UnusedTTL, Logger: logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Keep(running, cfg.Content.Cleanup)
	}()
	l.onStop("content", func(context.Context) error {
		cancel()
		<-done
		s.Close()
		return nil
	})
	return s, nil
}

// openBlobs opens where content is kept.
func openBlobs(ctx context.Context, cfg configs.Config, l *lifecycle) (content.Blobs, error) {
	c := cfg.Content
	if strings.HasPrefix(c.URL, "s3://") {
		return content.OpenS3(ctx, content.S3Options{URL: c.URL, AccessKey: c.AccessKey, SecretKey: c.SecretKey})
	}
	dir := "data/content"
	if file, ok := strings.CutPrefix(cfg.Store.URL, "sqlite://"); ok {
		dir = filepath.Join(filepath.Dir(file), "content")
	}
	if c.URL != "" {
		u, err := url.Parse(c.URL)
		if err != nil {
			return nil, fmt.Errorf("content.url: %w", err)
		}
		dir = filepath.FromSlash(u.Path)
	}
	d := content.NewDir(dir)
	l.onStop("content directory", func(context.Context) error { return d.Close() })
	return d, nil
}
