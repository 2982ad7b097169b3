package domain

import "time"

// Publication is something to deliver, encoded once and shared by all who receive it. It is never changed after it
// was made.
type Publication struct {
	Topic   string
	Payload []byte
	// Correlation is the MQTT 5 Correlation Data of a reply; nil: none.
	Correlation []byte
	// Accepted is when the gateway took the publish that led to this; zero: nothing to measure.
	Accepted time.Time
}

// Delivery is a publication for one session.
type Delivery struct {
	Publication *Publication
	QoS         byte // 0 or 1
	Retain      bool
	// Identifiers are the MQTT 5 Subscription Identifiers of the subscriptions that it is for.
	Identifiers []int
	// Conversation and Seq place a sequenced event; zero for everything else.
	Conversation ConversationID
	Seq          Seq
}

// Subscription is one entry of a SUBSCRIBE.
type Subscription struct {
	Filter  string
	Options SubscribeOptions
}

// Welcome is what the acknowledgement of a login tells.
type Welcome struct {
	Principal Principal
	// Present is MQTT's Session Present.
	Present bool
	// ServerTime is in milliseconds since 1970.
	ServerTime int64
}
