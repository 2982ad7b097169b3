// Package persistence stores conversations, their logs, and who may log in, in Postgres or in SQLite.
//
// It is the only place that speaks SQL. A [Store] is opened on a URL and migrated; the gateway's committers then write
// through its [Log] values, and everybody else reads and administers through the Store itself, from any goroutine.
// The rules are not here: a change is decided by the function that comes with it, on what was read under the locks.
//
// What holds for both databases:
//
//   - A conversation's head is one row with its last number and its version. Whoever writes to a conversation locks
//     that row first, those of several conversations in ascending order of their ids. So numbers have no gaps, commit
//     order is number order, and nobody deadlocks.
//   - What is committed is durable: Postgres with fsync and synchronous_commit on (checked at start), SQLite with
//     synchronous FULL.
//   - A write whose outcome is unknown may be given again. Appends are recognised by (conversation, sender, client id),
//     changes by their key.
//   - No statement that could do harm twice runs outside of an explicit transaction or a connection of its own: the
//     Postgres driver may run a pooled statement a second time when a connection ends at the wrong moment.
//   - Durable sessions, their positions and delivered marks never lock a head: acknowledgements by readers do not slow
//     writers down.
//
// Errors are the domain's: unavailable where trying again may help, internal where it will not, and the refusals that
// the methods name. They are told apart by the codes of the drivers.
//
// The package must not import gateway: it implements the interfaces declared there by having the methods.
package persistence
