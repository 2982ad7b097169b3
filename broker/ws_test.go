package broker_test

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
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
	conn, resp, err := websocket.Dial(ctx, "ws://"+r.server.Addrs()["ws"].String()+path,
		&websocket.DialOptions{HTTPHeader: header, Subprotocols: protocols})
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	if err != nil {
		return nil, status, err
	}
	tb.Cleanup(func() { _ = conn.CloseNow() })
	return &wsConn{websocket.NetConn(context.Background(), conn, websocket.MessageBinary)}, status, nil
}

// wsConn ends without waiting for the other side.
type wsConn struct{ net.Conn }

func (c *wsConn) Close() error { _ = c.Conn.SetDeadline(time.Unix(1, 0)); return nil }
