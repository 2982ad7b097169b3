package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// socketKey finds the raw socket of a request.
type socketKey struct{}

// newWebServer makes the HTTP server that upgrades to WebSocket.
func (s *Server) newWebServer(l *listener) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) { s.upgrade(l, w, r) })
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.limits.ConnectTimeout,
		ReadTimeout:       s.limits.ConnectTimeout,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, socketKey{}, c) },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false)
	return srv
}

func (s *Server) upgrade(l *listener, w http.ResponseWriter, r *http.Request) {
	socket, ok := r.Context().Value(socketKey{}).(*raw)
	if !ok {
		http.Error(w, "no socket", http.StatusInternalServerError)
		return
	}
	if !offersMQTT(r.Header) {
		s.metrics.refused.WithLabelValues("subprotocol").Inc()
		http.Error(w, "Sec-WebSocket-Protocol must offer mqtt", http.StatusBadRequest)
		return
	}
	if !s.mayComeFrom(r) {
		s.metrics.refused.WithLabelValues("origin").Inc()
		http.Error(w, "this Origin may not connect", http.StatusForbidden)
		return
	}
	deadline := time.Now().Add(s.limits.ConnectTimeout)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{"mqtt"},
		InsecureSkipVerify: true, // checked above
	})
	if err != nil {
		s.metrics.refused.WithLabelValues("upgrade").Inc()
		return
	}
	// A message may hold any part of any number of packets, so its size says nothing; but there is no reason for it
	// to be boundless.
	conn.SetReadLimit(max(int64(s.limits.PacketSize)*8, 1<<20))
	_ = socket.SetReadDeadline(deadline) // the upgrade took it away
	s.start(socket, l, func() (stream, error) { return &web{conn: conn}, nil })
}

func offersMQTT(h http.Header) bool {
	for _, line := range h.Values("Sec-WebSocket-Protocol") {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "mqtt") {
				return true
			}
		}
	}
	return false
}

// mayComeFrom checks the Origin: a web page may connect to the host that it came from, and from where the operator
// allows it. What is not a browser sends none.
func (s *Server) mayComeFrom(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, pattern := range s.limits.Origins {
		target := u.Host
		if strings.Contains(pattern, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(target)); ok && err == nil {
			return true
		}
	}
	return false
}

// web is a WebSocket connection. Each write is a message; a read gives what there is of the present one. Its deadlines
// are those of the raw socket.
type web struct {
	conn   *websocket.Conn
	reader io.Reader
}

var errText = errors.New("a text message: MQTT takes binary ones")

func (w *web) Read(p []byte) (int, error) {
	for {
		if w.reader == nil {
			kind, r, err := w.conn.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary { // [MQTT-6.0.0-1]
				return 0, errText
			}
			w.reader = r
		}
		n, err := w.reader.Read(p)
		if errors.Is(err, io.EOF) {
			w.reader, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (w *web) Write(p []byte) (int, error) {
	if err := w.conn.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// hangUp waits for the peer's close frame, or until the deadline of the raw socket. Then the socket is closed.
func (w *web) hangUp() {
	_ = w.conn.Close(websocket.StatusNormalClosure, "") // a peer that is gone need not be told
}
