package persistence_test

import (
	"path/filepath"
	"testing"

	"github.com/parley-im/parley/persistence/storetest"
)

func TestSQLiteConformance(t *testing.T) {
	storetest.Run(t, storetest.Backend{New: func(tb testing.TB) storetest.Place {
		return place("sqlite://" + filepath.Join(tb.TempDir(), "data", "parley.db"))
	}})
}
