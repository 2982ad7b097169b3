package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-im/parley/configs"
	"github.com/parley-im/parley/gateway"
	"github.com/parley-im/parley/identity"
)

// external makes what proves identities elsewhere; nil for what is not configured.
func external(
	cfg configs.Config, l *lifecycle, logger *slog.Logger, registerer prometheus.Registerer,
) (issuers gateway.Issuers, service gateway.LoginService, err error) {
	roots, err := authorities(cfg.Identity.CA)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.Identity.Issuers) > 0 {
		list := make([]identity.Issuer, 0, len(cfg.Identity.Issuers))
		for _, i := range cfg.Identity.Issuers {
			list = append(list, identity.Issuer{
				Name: i.Issuer, Keys: i.JWKS, Audience: i.Audience, Algorithms: i.Algorithms, Skew: i.Skew, Claim: i.Claim,
				Username: i.Username, Accounts: i.Accounts, Create: i.Create,
			})
		}
		made, err := identity.NewIssuers(identity.IssuersOptions{Issuers: list, Roots: roots, Logger: logger, Registerer: registerer})
		if err != nil {
			return nil, nil, err
		}
		l.onStop("issuers", func(context.Context) error {
			made.Close()
			return nil
		})
		issuers = made
	}
	if cfg.Hook.URL != "" {
		made, err := identity.NewHook(identity.HookOptions{
			URL: cfg.Hook.URL, Token: cfg.Hook.Token, Accounts: cfg.Hook.Accounts, Create: cfg.Hook.Create,
			Timeout: cfg.Hook.Timeout, Parallel: cfg.Hook.Parallel, Roots: roots, Logger: logger, Registerer: registerer,
		})
		if err != nil {
			return nil, nil, err
		}
		l.onStop("login hook", func(context.Context) error {
			made.Close()
			return nil
		})
		service = made
	}
	return issuers, service, nil
}

// authorities gives those of the system and of a PEM file; nil: the system's alone.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // that is how crypto/tls names the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("identity.ca: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("identity.ca: no certificate in PEM form")
	}
	return roots, nil
}

// orNever turns a configured zero, which means never, into what the gateway has for that.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
