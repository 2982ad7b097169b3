package persistence_test

import (
	"testing"

	"github.com/parley-im/parley/persistence/pgtest"
	"github.com/parley-im/parley/persistence/storetest"
)

func TestPostgresConformance(t *testing.T) {
	storetest.Run(t, storetest.Backend{Shared: true, New: func(tb testing.TB) storetest.Place {
		return place(pgtest.NewDatabase(tb))
	}})
}
