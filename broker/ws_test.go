package broker_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/parley-im/parley/broker"
	"github.com/parley-im/parley/domain"
	"github.com/parley-im/parley/hooks"
)

// dialWS opens a WebSocket, and fails the test if that is refused.
func dialWS(tb testing.TB, r *rig, origin string, protocols ...string) net.Conn {
	tb.Helper()
	conn, _, err := tryWS(tb, r, "/mqtt", origin, protocols...)
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

func tryWS(tb testing.TB, r *rig, path, origin string, protocols ...string) (net.Conn, int, error) {
	tb.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+r.server.Addrs()["ws"].String()+path, //nolint:bodyclose // Dial closes it
		&websocket.DialOptions{HTTPHeader: header, Subprotocols: protocols})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if err != nil {
		return nil, status, err
	}
	tb.Cleanup(func() { _ = conn.CloseNow() })
	return &wsConn{websocket.NetConn(context.Background(), conn, websocket.MessageBinary), conn}, status, nil
}

// wsConn ends without waiting for the other side.
type wsConn struct {
	net.Conn
	socket *websocket.Conn
}

func (c *wsConn) Close() error { return c.socket.CloseNow() }

func TestAWebPageMayConnectFromItsOwnHostAndWhereItIsAllowed(t *testing.T) {
	// mochi's listener takes any Origin, any path and any subprotocol: any page could use the visitor's session.
	r := newRig(t, nil, limits(func(l *broker.Limits) { l.Origins = []string{"*.acme.example", "https://chat.example"} }))
	host := r.server.Addrs()["ws"].String()
	for name, test := range map[string]struct {
		path, origin, protocol string
		status                 int
	}{
		"no origin":          {"/mqtt", "", "mqtt", 101},
		"same host":          {"/mqtt", "http://" + host, "mqtt", 101},
		"same host, TLS":     {"/mqtt", "https://" + host, "mqtt", 101},
		"allowed host":       {"/mqtt", "https://Web.acme.example", "mqtt", 101},
		"allowed scheme":     {"/mqtt", "https://chat.example", "mqtt", 101},
		"other scheme":       {"/mqtt", "http://chat.example", "mqtt", 403},
		"other host":         {"/mqtt", "https://evil.example", "mqtt", 403},
		"nearly the host":    {"/mqtt", "https://acme.example.evil.example", "mqtt", 403},
		"no host":            {"/mqtt", "null", "mqtt", 403},
		"not a URL":          {"/mqtt", "http://%zz", "mqtt", 403},
		"other path":         {"/", "", "mqtt", 404},
		"longer path":        {"/mqtt/x", "", "mqtt", 404},
		"no subprotocol":     {"/mqtt", "", "", 400},
		"other subprotocol":  {"/mqtt", "", "mqttv3.1", 400},
		"letter case":        {"/mqtt", "", "MQTT", 101},
		"among others":       {"/mqtt", "", "soap, mqtt", 101},
		"others only, twice": {"/mqtt", "", "soap, wamp", 400},
	} {
		t.Run(name, func(t *testing.T) {
			var protocols []string
			if test.protocol != "" {
				protocols = strings.Split(test.protocol, ", ")
			}
			if _, status, err := tryWS(t, r, test.path, test.origin, protocols...); status != test.status {
				t.Errorf("status %d, %v", status, err)
			}
		})
	}
	if n := r.metric(t, "parley_mqtt_sockets_refused_total", "reason", "origin"); n != 5 {
		t.Errorf("%v refused by origin", n)
	}
	resp, err := http.Get("http://" + host + "/mqtt")
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: %s", resp.Status)
	}
}

// over runs MQTT over a connection that is there already.
func over(tb testing.TB, conn net.Conn, version byte, device string) *client {
	tb.Helper()
	c := &client{Conn: conn, tb: tb, r: bufio.NewReader(conn), version: version}
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, Connect: packets.ConnectParams{
		ProtocolName: []byte("MQTT"), Clean: true, ClientIdentifier: device,
		UsernameFlag: true, Username: []byte(alice), PasswordFlag: true, Password: []byte("good"),
	}})
	if ack := c.expect(packets.Connack); ack.ReasonCode != 0 {
		tb.Fatal(show(ack))
	}
	return c
}

// exercise goes once through what a connection is for, with messages of some size.
func exercise(t *testing.T, r *rig, c *client, device string) {
	t.Helper()
	payload := make([]byte, 100_000)
	s := r.seat(t, alice, device)
	for range 20 {
		s.put(domain.Delivery{Publication: publication(events, string(payload)), QoS: 1})
	}
	for range 20 {
		pk := c.expect(packets.Publish)
		if len(pk.Payload) != len(payload) {
			t.Fatal(show(pk))
		}
		c.send(ackOf(packets.Puback, pk.PacketID))
	}
	c.send(message(string(payload[:30_000]), 1, 1))
	c.expect(packets.Puback)
	c.ping()
}

func TestMQTTRunsOverWebSocket(t *testing.T) {
	// A message may hold a part of a packet, or several; a text message is none of ours ([MQTT-6.0.0-1]).
	r := newRig(t, nil)
	for _, version := range []byte{4, 5} {
		conn := dialWS(t, r, "", "mqtt")
		c := over(t, conn, version, "phone")
		exercise(t, r, c, "phone")
		for _, b := range encoded(t, version, message("piecemeal", 1, 7)) {
			c.raw(b)
		}
		c.expect(packets.Puback)
		two := append(encoded(t, version, message("one", 1, 8)), encoded(t, version, message("two", 1, 9))...)
		c.raw(two...)
		c.expect(packets.Puback)
		c.expect(packets.Puback)
		r.seat(t, alice, "phone").conn.Close(domain.TokenExpired())
		if version == 5 {
			if pk := c.expect(packets.Disconnect); pk.ReasonCode != 0x87 {
				t.Error(show(pk))
			}
		}
		if pk, err := c.tryRecv(patience); err != io.EOF { //nolint:errorlint // the normal closure, and nothing else
			t.Errorf("%s %v", show(pk), err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+r.server.Addrs()["ws"].String()+"/mqtt", //nolint:bodyclose // Dial closes it
		&websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("after a text message: %v", err)
	}
}

// certificate makes a certificate for 127.0.0.1, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func TestMQTTRunsOverTLS(t *testing.T) {
	// The same connection, with a handshake that is part of what has to happen in time.
	cert, pool := certificate(t)
	r := newRig(t, nil, func(o *broker.Options, _ *hooks.Options) {
		o.TLS, o.TLSConfig = "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		o.Limits.ConnectTimeout = 2 * time.Second // enough for a handshake and a login on a busy machine
	})
	addr := r.server.Addrs()["tls"].String()
	for _, version := range []byte{4, 5} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool})
		if err != nil {
			t.Fatal(err)
		}
		c := over(t, conn, version, "phone")
		exercise(t, r, c, "phone")
		r.seat(t, alice, "phone").conn.Close(domain.TokenExpired())
		if version == 5 {
			c.expect(packets.Disconnect)
		}
		if pk, err := c.tryRecv(patience); err != io.EOF { //nolint:errorlint // close_notify, and nothing else
			t.Errorf("%s %v", show(pk), err)
		}
		_ = conn.Close()
	}
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	_ = silent.SetReadDeadline(time.Now().Add(patience))
	if _, err := silent.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a socket without a handshake: %v", err)
	}
	eventually(t, "the refusal is counted", func() bool {
		return r.metric(t, "parley_mqtt_sockets_refused_total", "reason", "handshake") == 1
	})
}

func TestNewReportsWhatItCannotListenOn(t *testing.T) {
	// And leaves no port bound.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	if _, err := broker.New(broker.Options{TCP: free.Addr().String(), WS: taken.Addr().String()}); err == nil {
		t.Error("two servers on one port")
	}
	if _, err := broker.New(broker.Options{TLS: "127.0.0.1:0"}); err == nil {
		t.Error("TLS without a certificate")
	}
	s, err := broker.New(broker.Options{TCP: free.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil { // without having served
		t.Error(err)
	}
	again, err := net.Listen("tcp", free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}
