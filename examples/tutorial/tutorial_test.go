package main

import (
	"testing"

	"github.com/parley-im/parley/examples/walktest"
	"github.com/parley-im/parley/persistence/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestTheTutorialHolds(t *testing.T) {
	// What a newcomer reads first must be true: each of its claims is checked against a gateway, on both stores.
	walktest.Play(t, "tutorial", tell)
}
