// Package chaos checks what Parley promises about messages and deliveries while everything around them fails: clients that
// come, go, stop reading and take each other's place, memberships that change, a gateway that is killed, a store that
// is restarted.
//
// [Check] judges a recorded [History] against the promises of docs/protocol.md. It knows nothing of how Parley works: who was
// entitled to what it takes from the logs themselves. The tests of the package make such histories with a real gateway
// process, from a seed that they print; a longer run is `make chaos`.
//
// The package imports nothing else of this module, so that it cannot share a misunderstanding with it.
package chaos
