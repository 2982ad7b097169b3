// Package hooks turns inbound MQTT into commands: it is the one mochi hook of the gateway. It reads each packet after
// mochi has decoded it and before mochi acts on it, deals with what concerns conversations itself, and answers.
//
// Logins go to Options.Connect, publishes to [Session.Submit], subscriptions to [Session.Subscribe]; acknowledgements
// are sent when the session says that the publish is committed, in the order in which the publishes came
// ([MQTT-4.6.0-2], [MQTT-4.6.0-3]). What is answered to a refusal, by version and QoS, is decided in verdict.go alone.
//
// Of mochi's own handling of publishes, subscriptions and acknowledgements nothing is used; what would reach it is denied.
package hooks
