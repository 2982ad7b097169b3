// Package broker owns the MQTT server: the sockets, what is written to them, and the limits on both. It accepts
// connections over TCP, TLS and WebSocket, lets mochi parse and dispatch what comes in, and sends sessions' deliveries
// out itself.
//
// Each socket has a [Conn]. Towards the gateway it is the outbound half of a session: deliveries are pulled from a
// [Source] by a goroutine, the pump, that exists only while there is something to send, and never more QoS 1
// deliveries are under way than the client's Receive Maximum allows. Towards mochi it is a net.Conn whose writes never
// block: everything that goes out, mochi's own packets included, goes through the one queue of the Conn.
//
// mochi's listeners, event loop, packet ids, in-flight map, outbound queue and session take-over are not used.
//
// Life cycle: [New] binds the ports, [Server.Use] adds hooks, [Server.Serve] starts to accept; then
// [Server.StopAccepting], [Server.DisconnectAll] and [Server.Close], of which Close implies the other two.
package broker
