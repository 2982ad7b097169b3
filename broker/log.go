package broker

import (
	"context"
	"log/slog"

	"github.com/mochi-mqtt/server/v2/packets"
)

// discreet is a log handler that leaves packets out: mochi logs them whole, with what people wrote in them.
type discreet struct{ slog.Handler }

// Enabled implements slog.Handler. What mochi tells of its own life is for those who look into it.
func (h *discreet) Enabled(ctx context.Context, level slog.Level) bool {
	if level == slog.LevelInfo {
		level = slog.LevelDebug
	}
	return h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *discreet) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if !isPacket(a) {
			clean.AddAttrs(a)
		}
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

// WithAttrs implements slog.Handler.
func (h *discreet) WithAttrs(attrs []slog.Attr) slog.Handler {
	var clean []slog.Attr
	for _, a := range attrs {
		if !isPacket(a) {
			clean = append(clean, a)
		}
	}
	return &discreet{h.Handler.WithAttrs(clean)}
}

// WithGroup implements slog.Handler.
func (h *discreet) WithGroup(name string) slog.Handler { return &discreet{h.Handler.WithGroup(name)} }

func isPacket(a slog.Attr) bool {
	switch a.Value.Any().(type) {
	case packets.Packet, *packets.Packet, []byte:
		return true
	}
	return false
}
