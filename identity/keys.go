package identity

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// The times of a key set.
const (
	// refreshEvery is how often the keys are fetched while nothing is wrong, retryFirst to retryMost how long after a failure.
	refreshEvery = 15 * time.Minute
	retryFirst   = 2 * time.Second
	retryMost    = 2 * time.Minute
	// keepFor is how long keys go on being used while no newer ones can be had: an outage of the issuer must not lock
	// everybody out at once, and a key that it has withdrawn must not be good for ever.
	keepFor = 24 * time.Hour
	// demandPause is the least time between two fetches because of an unknown key id: tokens that name keys of fantasy must
	// not become requests.
	demandPause = 30 * time.Second
	// fetchTimeout bounds one fetch.
	fetchTimeout = 5 * time.Second
)

// errUnknownKey: the issuer has no such key, as far as is known.
var errUnknownKey = errors.New("no key of this id and algorithm")

// keySet are the keys of an issuer, fetched from its URL.
type keySet struct {
	url     string
	client  *client
	now     func() time.Time
	logger  *slog.Logger
	fetches func(ok bool)
	flight  singleflight.Group

	mu       sync.Mutex // guards the following
	keys     map[key]crypto.PublicKey
	fetched  time.Time // when keys were
	failed   error     // of the last fetch
	demanded time.Time // the last fetch because of an unknown key id
}

// run keeps the keys fresh until ctx ends.
func (s *keySet) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if s.fetch(ctx) == nil {
			retry = retryFirst
			timer.Reset(refreshEvery)
			continue
		}
		timer.Reset(retry)
		retry = min(2*retry, retryMost)
	}
}

// key gives a key. One that is not known is looked for at the issuer, now and then. Its errors are errUnknownKey, or why
// the keys could not be had.
func (s *keySet) key(ctx context.Context, k key) (crypto.PublicKey, error) {
	if public := s.find(k); public != nil {
		return public, nil
	}
	// Whoever comes while the keys are being fetched waits for them, too.
	_, err, _ := s.flight.Do("", func() (any, error) {
		if !s.demand() {
			return nil, nil //nolint:nilnil // nothing is given, only done
		}
		// Those who wait for this have contexts of their own; the first one's must not end it for all.
		return nil, s.fetch(context.WithoutCancel(ctx))
	})
	if err != nil {
		return nil, err
	}
	if public := s.find(k); public != nil {
		return public, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed // it may be a new one
	}
	return nil, errUnknownKey
}

// find gives a key that is known and was fetched lately enough; else nil.
func (s *keySet) find(k key) crypto.PublicKey {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.fetched) >= keepFor {
		return nil
	}
	return s.keys[k]
}

// demand reports whether an unknown key may be asked for now.
func (s *keySet) demand() bool {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.demanded) < demandPause {
		return false
	}
	s.demanded = now
	return true
}

// fetch replaces the keys by the issuer's present ones. When that fails the old ones stay.
func (s *keySet) fetch(ctx context.Context) error {
	keys, err := s.ask(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.fetches(err == nil)
	s.mu.Lock()
	before := s.failed
	s.failed = err
	if err == nil {
		s.keys, s.fetched = keys, s.now()
	}
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.logger.Warn("the keys of an issuer cannot be fetched", slog.String("host", hostOf(s.url)), slog.Any("error", err))
	case err == nil && before != nil:
		s.logger.Info("the keys of an issuer can be fetched again", slog.String("host", hostOf(s.url)))
	}
	return err
}

func (s *keySet) ask(ctx context.Context) (map[key]crypto.PublicKey, error) {
	status, answer, err := s.client.do(ctx, http.MethodGet, s.url, "", nil, maxKeySet)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d, not 200", status)
	}
	return parseKeys(answer)
}
