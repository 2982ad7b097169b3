// Package domain holds Parley's words and rules: identifiers, names, topics, messages, events, the error
// catalogue, the commands and [Decide], which turns state and a command into events or an error.
//
// Everything here is pure: no I/O, no clocks, no randomness, no goroutines, the standard library only. What a
// rule needs from outside (the time, a fresh identifier, rows of the store) arrives in [Heads]. That is what
// lets the store run the rules under its row locks, and the tests run them without a store.
//
// Adding a command happens in this package alone: a struct with its four methods, a line in NewCommand, a test.
package domain
