// Package e2e holds the end-to-end tests: each file is named after the promises of docs/protocol.md that it checks, from
// the outside, with MQTT and HTTP clients that were written by others, on both stores.
//
// Most tests share one gateway per store and tell themselves apart by accounts of their own, which cannot see each other.
// Tests that restart, kill or reconfigure a gateway start their own; those that kill the process run the real binary.
package e2e
