package persistence

import (
	"context"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migration is one step of the schema.
type Migration struct {
	Version int64
	// Name is the name of its file.
	Name    string
	Applied bool
}

// Migrate brings the schema up to date. Several processes may do so at the same time on one Postgres: one does the
// work, the others wait for it. A store of a newer version of Parley is refused with [ErrNewerSchema].
func (s *Store) Migrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	if err := s.checkVersion(ctx); err != nil {
		return err
	}
	applied, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating the store: %w", err)
	}
	for _, r := range applied {
		s.logger.Info("migrated the store", "version", r.Source.Version, "duration", r.Duration)
	}
	return nil
}

// MigrationStatus lists all steps in order. On a store that was never migrated it makes the table that remembers them.
func (s *Store) MigrationStatus(ctx context.Context) ([]Migration, error) {
	p, err := s.provider()
	if err != nil {
		return nil, err
	}
	status, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking for the state of the schema: %w", err)
	}
	list := make([]Migration, len(status))
	for i, m := range status {
		list[i] = Migration{Version: m.Source.Version, Name: m.Source.Path, Applied: m.State == goose.StateApplied}
	}
	return list, nil
}

func (s *Store) provider() (*goose.Provider, error) {
	files, err := s.d.migrations()
	if err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithVerbose(false)}
	if s.d.goose == goose.DialectPostgres {
		// Try once per second, for five minutes.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(s.d.goose, s.writes.DB, files, options...)
	if err != nil {
		return nil, fmt.Errorf("the migrations of this version: %w", err)
	}
	return p, nil
}

// checkVersion refuses a store whose schema this version of Parley does not know. A store without one passes.
func (s *Store) checkVersion(ctx context.Context) error {
	var tables, version int64
	if _, err := one(ctx, s.reads, []any{&tables}, s.d.versionTable); err != nil {
		return fmt.Errorf("asking for the version of the schema: %w", err)
	}
	if tables == 0 {
		return nil
	}
	const newest = "SELECT COALESCE(max(version_id), 0) FROM goose_db_version WHERE is_applied"
	if _, err := one(ctx, s.reads, []any{&version}, newest); err != nil {
		return fmt.Errorf("asking for the version of the schema: %w", err)
	}
	known, err := s.newestMigration()
	if err != nil {
		return err
	}
	if version > known {
		return fmt.Errorf("%w: its schema has version %d, this one knows up to %d", ErrNewerSchema, version, known)
	}
	return nil
}

func (s *Store) newestMigration() (int64, error) {
	p, err := s.provider()
	if err != nil {
		return 0, err
	}
	sources := p.ListSources()
	if len(sources) == 0 {
		return 0, errors.New("this version has no migrations")
	}
	return sources[len(sources)-1].Version, nil
}
