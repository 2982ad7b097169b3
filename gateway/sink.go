package gateway

import "github.com/parley-im/parley/domain"

// Sink is a session's connection, as far as the gateway needs one. Neither method blocks, and any goroutine may call
// them, also after the connection has gone.
//
// Deliveries are pulled: after a Wake the connection calls [Session.Next] from a goroutine of its own until that
// gives nothing more, as fast as its peer reads and its window allows.
type Sink interface {
	// Wake says that Session.Next has something to give. Calls in quick succession may count as one.
	Wake()
	// Close ends the connection, after telling a client that can be told.
	Close(why domain.Farewell)
}
