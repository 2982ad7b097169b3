package hooks

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/domain"
)

// The longest that a client may say about itself, in bytes.
const (
	maxUsername = 512
	maxPassword = 8 << 10 // access tokens are passwords
	maxDevice   = 256
	maxTag      = 64
)

// hideWill makes mochi see a CONNECT without a Will: it refuses the empty payload that MQTT allows, and would send the
// Will past every check. The Will stays in the packet, in fields that mochi does not look at without the flag.
func hideWill(pk *packets.Packet) {
	if !pk.Connect.WillFlag {
		return
	}
	pk.Ignore, pk.FixedHeader.Retain = true, pk.Connect.WillRetain
	pk.Connect.WillFlag, pk.Connect.WillRetain = false, false
}

// hideEmptyPassword makes mochi see a CONNECT without a password where it is empty, which MQTT allows: mochi would say
// that the client breaks the protocol, and not that it has failed to log in.
func hideEmptyPassword(pk *packets.Packet) {
	if len(pk.Connect.Password) == 0 {
		pk.Connect.PasswordFlag = false
	}
}

// hiddenWill gives the Will that hideWill has hidden, nil if there is none.
func hiddenWill(pk *packets.Packet) *domain.Will {
	if !pk.Ignore {
		return nil
	}
	p := &pk.Connect.WillProperties
	return &domain.Will{
		Publish: domain.Publish{
			Topic: strings.Clone(pk.Connect.WillTopic), Payload: append([]byte(nil), pk.Connect.WillPayload...),
			Version: pk.ProtocolVersion, QoS: pk.Connect.WillQos, Retain: pk.FixedHeader.Retain,
			ContentType: strings.Clone(p.ContentType), ResponseTopic: strings.Clone(p.ResponseTopic),
			Correlation: append([]byte(nil), p.CorrelationData...),
		},
		Delay: p.WillDelayInterval,
	}
}

// hello reads what the CONNECT says. Nothing of the result is part of the packet.
func (h *Hook) hello(cl *mqtt.Client, pk *packets.Packet) (domain.Hello, *refusal) {
	c := &pk.Connect
	invalid := func(reason packets.Code, detail string) (domain.Hello, *refusal) {
		return domain.Hello{}, &refusal{reason.Code, domain.Errorf(domain.InvalidRequest, "%s", detail)}
	}
	switch {
	case pk.Properties.AuthenticationMethod != "":
		return invalid(packets.ErrBadAuthenticationMethod, "there is no enhanced authentication here")
	case len(pk.Properties.AuthenticationData) > 0:
		return invalid(packets.ErrProtocolViolation, "authentication data without a method")
	case !c.UsernameFlag && c.PasswordFlag:
		return invalid(packets.ErrBadUsernameOrPassword, "a password without a user name")
	case !c.UsernameFlag:
		return domain.Hello{}, &refusal{err: domain.Errorf(domain.NotAuthenticated, "a user name is needed")}
	case !utf8.Valid(c.Username) || strings.ContainsRune(string(c.Username), 0):
		return invalid(packets.ErrMalformedUsername, "the user name is not UTF-8") // [MQTT-1.5.4-1]
	case len(c.Username) > maxUsername || len(c.Password) > maxPassword:
		return invalid(packets.ErrBadUsernameOrPassword, "the user name or the password is too long")
	case len(c.ClientIdentifier) > maxDevice:
		return invalid(packets.ErrClientIdentifierNotValid, "the client id is at most 256 bytes long")
	case c.WillQos > 2, c.WillQos > 0 && !pk.Ignore: // [MQTT-3.1.2-11], [MQTT-3.1.2-12]
		return invalid(packets.ErrMalformedFlags, "the QoS of the Will is not valid")
	}
	name, options, _ := strings.Cut(string(c.Username), "?")
	hello := domain.Hello{
		Username: name, Password: string(c.Password), Device: strings.Clone(cl.ID), Version: pk.ProtocolVersion,
		Clean: c.Clean, Remote: cl.Net.Remote, Will: hiddenWill(pk),
	}
	switch {
	case hello.Version >= 5:
		hello.Expiry = min(pk.Properties.SessionExpiryInterval, h.o.SessionExpiryMax)
	case !c.Clean:
		hello.Expiry = h.o.SessionExpiryMax
	}
	if err := readOptions(&hello, options, pk.Properties.User); err != nil {
		return domain.Hello{}, &refusal{err: err}
	}
	if err := h.checkWill(&hello); err != nil {
		return domain.Hello{}, &refusal{err: err}
	}
	return hello, nil
}

// readOptions reads tag, reconnect and sync, from the query string behind the user name and from user properties, which win.
// Other names are no business of ours.
func readOptions(hello *domain.Hello, query string, properties []packets.UserProperty) *domain.Error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return domain.Errorf(domain.InvalidRequest, "what follows the ? of the user name is not a query string")
	}
	tag, reconnect, sync := values.Get("tag"), values.Get("reconnect"), values.Get("sync")
	for _, p := range properties {
		switch p.Key {
		case "tag":
			tag = p.Val
		case "reconnect":
			reconnect = p.Val
		case "sync":
			sync = p.Val
		}
	}
	if len(tag) > maxTag || !utf8.ValidString(tag) || strings.ContainsFunc(tag, unicode.IsControl) {
		return domain.Errorf(domain.InvalidRequest, "a tag is at most %d bytes of text", maxTag)
	}
	hello.Tag = strings.Clone(tag)
	switch reconnect {
	case "", "0", "false":
	case "1", "true":
		hello.Reconnect = true
	default:
		return domain.Errorf(domain.InvalidRequest, "reconnect is 0 or 1")
	}
	_, _, service := domain.ServiceLogin(hello.Username)
	switch {
	case sync == "" || sync == "pull":
	case sync != "push":
		return domain.Errorf(domain.InvalidRequest, "sync is pull or push")
	case service:
		return domain.Errorf(domain.InvalidRequest, "sync=push is for users: nothing is kept of what a service has received")
	default:
		hello.Push = true
	}
	return nil
}

// checkWill refuses a Will that nobody of that name could publish. Whether this one may is the gateway's question.
func (h *Hook) checkWill(hello *domain.Hello) *domain.Error {
	if hello.Will == nil {
		return nil
	}
	p := domain.Principal{User: 1, Username: domain.Username(hello.Username)}
	if name, account, ok := domain.ServiceLogin(hello.Username); ok {
		p = domain.Principal{Service: 1, ServiceName: name, AccountName: account}
	}
	req := domain.DecodeWill(p, hello.Will, h.o.Limits)
	return domain.AsError(req.Err)
}
