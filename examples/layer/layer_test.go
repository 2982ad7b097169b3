package main

import (
	"testing"

	"github.com/parley-im/parley/examples/walktest"
	"github.com/parley-im/parley/persistence/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestTheFeaturesOfLayerHold(t *testing.T) {
	// Whoever comes from there believes the table in docs/coming-from/layer.md because this runs.
	walktest.Play(t, "layer", tell)
}
