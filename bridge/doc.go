// Package bridge is for backends that do not speak MQTT: it offers the gateway's commands, logins and administration
// over HTTP (protocol.md, section 8). It adds no rules of its own: a request becomes a command or a call of
// [Administration], and what those say becomes the answer. Every refusal is a [Problem] (RFC 9457).
//
// A request walks through: router (request id, log, metrics, panics, CORS, unknown paths) -> around (who is it, its
// body, its Idempotency-Key) -> the route's handler. The routes are declared in login.go, users.go,
// conversations.go, services.go and health.go; huma turns the declarations into the OpenAPI document.
//
// The package imports domain and metrics only. What it needs from the gateway and the store is declared here and
// wired by app.
package bridge
