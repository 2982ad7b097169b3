// Package configs is the gateway's configuration: a typed struct with defaults, loaded from a YAML file and the environment.
//
// Later sources win: the defaults of [Default], then the file, then environment variables. A key such as mqtt.tcp is the
// variable PARLEY_MQTT_TCP; PARLEY_MQTT_TCP_FILE names a file to read the value from. Whatever is not a known key is an
// error that names the nearest one, and all errors are reported at once.
//
// To add a setting, add a field here with its default, a rule for it in validate.go, and its line with an explanation in
// parley.example.yaml; a test keeps the three together. Only app and the commands see this package: other packages have
// options of their own.
//
// The package imports nothing else of this module.
package configs

import (
	"log/slog"
	"time"
)

// Config is the whole configuration. A Config from [Load] or [Parse] is valid; it is not changed after that.
type Config struct {
	Store    Store    `koanf:"store"`
	MQTT     MQTT     `koanf:"mqtt"`
	TLS      TLS      `koanf:"tls"`
	HTTP     HTTP     `koanf:"http"`
	Content  Content  `koanf:"content"`
	Metrics  Metrics  `koanf:"metrics"`
	Admin    Admin    `koanf:"admin"`
	ACL      ACL      `koanf:"acl"`
	Limits   Limits   `koanf:"limits"`
	Login    Login    `koanf:"login"`
	Presence Presence `koanf:"presence"`
	Identity Identity `koanf:"identity"`
	Hook     Hook     `koanf:"loginHook"`
	Log      Log      `koanf:"log"`
	Shutdown Shutdown `koanf:"shutdown"`
}

// Store says where everything durable is kept.
type Store struct {
	// URL is sqlite://path (relative to the working directory; sqlite:///path is absolute) or postgres://….
	URL string `koanf:"url" secret:"url"`
}

// MQTT holds the addresses for MQTT clients, host:port; an empty one is off.
type MQTT struct {
	TCP string `koanf:"tcp" kind:"address"`
	WS  string `koanf:"ws"  kind:"address"` // WebSocket, at the path /mqtt
	TLS string `koanf:"tls" kind:"address"` // TLS over TCP, with the certificate in Config.TLS
}

// TLS names the PEM files for the TLS listener.
type TLS struct {
	Cert     string `koanf:"cert"`     // certificate chain
	Key      string `koanf:"key"`      // its private key
	ClientCA string `koanf:"clientCa"` // if not empty, clients must present a certificate that one of these authorities has signed
}

// HTTP is the listener of the HTTP API and the console.
type HTTP struct {
	Address string   `koanf:"address" kind:"address"` // host:port; empty is off
	Origins []string `koanf:"origins"`                // web origins whose pages may use the API from a browser; * is any
	URL     string   `koanf:"url"`                    // where clients reach the API; empty: http:// and the address
}

// Content is what parts of messages name instead of having it.
type Content struct {
	// URL is file:///path or s3://bucket/prefix?endpoint=…&region=…; empty: a directory content beside an SQLite store,
	// else data/content.
	URL       string        `koanf:"url"`
	AccessKey string        `koanf:"accessKey" secret:"all"` // for s3; empty: from where Amazon's tools look
	SecretKey string        `koanf:"secretKey" secret:"all"`
	MaxSize   Size          `koanf:"maxSize"`         // of one content
	Quota     Size          `koanf:"quota"`           // of all content of one user; 0 is no limit
	Uploads   int           `koanf:"uploads"`         // that are not complete, of one user; 0 is no limit
	URLTTL    time.Duration `koanf:"urlTtl"`          // life of a signed URL
	UnusedTTL time.Duration `koanf:"unusedTtl"`       // until content goes that no message has, or an upload that does not go on
	Cleanup   time.Duration `koanf:"cleanupInterval"` // between looks for what is to be removed
}

// Metrics is the listener for Prometheus.
type Metrics struct {
	Address string `koanf:"address" kind:"address"` // host:port; empty is off
}

// Admin is the operator's access.
type Admin struct {
	// Key is the bearer token of the administrator; empty means that the one kept in the store holds.
	Key string `koanf:"key" secret:"all"`
}

// ACL opens plain topics, outside of conversations, to devices.
type ACL struct {
	Rules []Rule `koanf:"rules"`
}

// Rule allows some users to publish or subscribe to some topics. What no rule allows is refused.
type Rule struct {
	Users  string   `yaml:"users"`  // pattern for the full user name, with * and ? as in file names
	Allow  []string `yaml:"allow"`  // publish, subscribe
	Topics []string `yaml:"topics"` // topic filters; %u is the user name, %c the client id, %a the account
}

// Limits protect the gateway and its clients from one another. Rates, connections, sessions and outstanding commands have no
// limit if it is 0.
type Limits struct {
	MessagesPerSecond     int           `koanf:"messagesPerSecond"`     // messages of one user, over all devices
	CommandsPerSecond     int           `koanf:"commandsPerSecond"`     // other commands of one user, over all devices
	TransientPerSecond    int           `koanf:"transientPerSecond"`    // messages of one user to those online only
	ConnectionsPerAddress int           `koanf:"connectionsPerAddress"` // simultaneous connections from one IP address
	PacketSize            Size          `koanf:"packetSize"`            // an MQTT packet from a client
	ConnectTimeout        time.Duration `koanf:"connectTimeout"`        // from accepting a connection to having its CONNECT
	WriteTimeout          time.Duration `koanf:"writeTimeout"`          // for which a client may take nothing of what is written to it
	Participants          int           `koanf:"participants"`          // of one conversation
	MessageSize           Size          `koanf:"messageSize"`           // a whole message as JSON
	PartSize              Size          `koanf:"partSize"`              // the body of one inline part
	TextLength            int           `koanf:"textLength"`            // of a message's text, in characters (Unicode code points)
	Parts                 int           `koanf:"parts"`                 // of one message
	ReceiveMaximum        int           `koanf:"receiveMaximum"`        // unacknowledged publishes per session, in each direction
	Sessions              int           `koanf:"sessions"`              // connected at the same time
	SessionsPerUser       int           `koanf:"sessionsPerUser"`       // connected at the same time, of one user
	Subscriptions         int           `koanf:"subscriptions"`         // of one session
	DeliveredSignals      int           `koanf:"deliveredSignals"`      // participants up to which a conversation has delivered signals
	Logins                int           `koanf:"logins"`                // of one user, with tokens that are still good
	Watched               int           `koanf:"watched"`               // users that one user has subscribed to (command subscribe)
	Scheduled             int           `koanf:"scheduled"`             // messages and announcements that services of one account have scheduled
	Waiting               Size          `koanf:"waiting"`               // replies and notices that wait for one session
	WaitingTotal          Size          `koanf:"waitingTotal"`          // the same for all sessions together
	Outstanding           int           `koanf:"outstanding"`           // commands that wait for their commit, over all sessions
}

// The most that checking a password may cost: the bounds of login.argon2Memory and login.argon2Iterations, and of what
// a stored hash may ask for. One made under a larger setting could not be checked any more.
const (
	MaxArgon2Memory     = 256 << 10 // KiB
	MaxArgon2Iterations = 16
)

// Login sets what checking passwords costs and how long tokens live.
type Login struct {
	Argon2Memory          int           `koanf:"argon2Memory"`          // for one verification, in KiB
	Argon2Iterations      int           `koanf:"argon2Iterations"`      // passes over that memory
	ParallelVerifications int           `koanf:"parallelVerifications"` // verifications at the same time; 0 is one per processor
	AccessTTL             time.Duration `koanf:"accessTtl"`             // life of an access token
	RefreshTTL            time.Duration `koanf:"refreshTtl"`            // life of a refresh token
}

// Presence sets who counts as being there.
type Presence struct {
	Grace time.Duration `koanf:"grace"` // how long a user stays online when its last device has gone
}

// Identity says whose tokens are believed besides the gateway's own.
type Identity struct {
	Issuers []Issuer `koanf:"issuers"`
	// CA is a PEM file of authorities that the servers of issuers and the login hook may have their certificate from,
	// besides those of the system.
	CA string `koanf:"ca"`
	// PlainHTTP allows http:// for them on other hosts than this one: in a network that nobody else listens to.
	PlainHTTP bool `koanf:"plainHttp"`
}

// Issuer is somebody whose tokens (JWT) are believed.
type Issuer struct {
	Issuer     string        `yaml:"issuer"`               // the claim iss
	JWKS       string        `yaml:"jwks"`                 // URL of the key set
	Audience   []string      `yaml:"audience"`             // of which a token must have one
	Username   string        `yaml:"username"`             // the full user name, with %s for the claim's value
	Claim      string        `yaml:"claim,omitempty"`      // that holds the user; empty is sub
	Accounts   []string      `yaml:"accounts,omitempty"`   // whose users it may name; needed where Username does not say it
	Algorithms []string      `yaml:"algorithms,omitempty"` // RS256, ES256, EdDSA; empty is all
	Skew       time.Duration `yaml:"skew,omitempty"`       // how far clocks may be apart
	Create     bool          `yaml:"create,omitempty"`     // make users that are not there yet
}

// Hook is the operator's own service that is asked about passwords.
type Hook struct {
	URL      string        `koanf:"url"      secret:"url"` // empty is off
	Token    string        `koanf:"token"    secret:"all"` // sent along as a bearer token
	Accounts []string      `koanf:"accounts"`              // whose users it is asked about; empty is all
	Create   bool          `koanf:"create"`                // make users that it lets in
	Timeout  time.Duration `koanf:"timeout"`               // for one question
	Parallel int           `koanf:"parallel"`              // questions at the same time
	Remember time.Duration `koanf:"remember"`              // for how long nobody is asked again about a right password
}

// Log sets what is logged and how.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // text, json
}

// SlogLevel returns the level as slog has it.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// Shutdown sets how a gateway stops.
type Shutdown struct {
	Timeout time.Duration `koanf:"timeout"` // for answering what has been accepted and taking leave of the clients
}

// Default returns the configuration of a gateway that has not been told anything.
func Default() Config {
	return Config{
		Store: Store{URL: "sqlite://data/parley.db"},
		MQTT:  MQTT{TCP: "127.0.0.1:1883", WS: "127.0.0.1:8083"},
		HTTP:  HTTP{Address: "127.0.0.1:8080"},
		Content: Content{
			MaxSize: 100 * MiB, Quota: 2 * GiB, Uploads: 100, URLTTL: 24 * time.Hour, UnusedTTL: 24 * time.Hour, Cleanup: time.Minute,
		},
		Metrics: Metrics{Address: "127.0.0.1:9100"},
		Limits: Limits{
			MessagesPerSecond:     0,
			CommandsPerSecond:     0,
			TransientPerSecond:    30,
			ConnectionsPerAddress: 10_000,
			PacketSize:            128 * KiB,
			ConnectTimeout:        10 * time.Second,
			WriteTimeout:          30 * time.Second,
			Participants:          1000,
			MessageSize:           64 * KiB,
			PartSize:              32 * KiB,
			TextLength:            5000,
			Parts:                 16,
			ReceiveMaximum:        64,
			Sessions:              100_000,
			SessionsPerUser:       1000,
			Subscriptions:         1000,
			DeliveredSignals:      100,
			Logins:                1000,
			Watched:               1000,
			Scheduled:             10_000,
			Waiting:               1 * MiB,
			WaitingTotal:          256 * MiB,
			Outstanding:           16_384,
		},
		Login: Login{
			Argon2Memory:          19 * 1024,
			Argon2Iterations:      2,
			ParallelVerifications: 0,
			AccessTTL:             48 * time.Hour,
			RefreshTTL:            720 * time.Hour,
		},
		Presence: Presence{Grace: time.Minute},
		Hook:     Hook{Timeout: 5 * time.Second, Parallel: 32, Remember: 30 * time.Second},
		Log:      Log{Level: "info", Format: "text"},
		Shutdown: Shutdown{Timeout: 10 * time.Second},
	}
}
