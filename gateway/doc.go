// Package gateway decides what happens to a command: it authenticates, submits, commits in groups, publishes to
// sessions and catches up. It knows neither MQTT nor SQL: the store is behind the interfaces of store.go, a
// session's connection behind [Sink].
package gateway
