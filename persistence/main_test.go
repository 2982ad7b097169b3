package persistence_test

import (
	"testing"

	"github.com/parley-im/parley/persistence/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
