package broker

import (
	"slices"

	"github.com/parley-im/parley/domain"
)

// window holds the QoS 1 deliveries that the client has not acknowledged, in the order in which they were sent. It is
// nearly always the oldest that is acknowledged.
type window struct {
	limit int
	last  uint16 // the packet id that was given last
	first int    // of the slices, what is before it is free
	ids   []uint16
	held  []domain.Delivery
}

func (w *window) room() int { return max(w.limit-(len(w.ids)-w.first), 0) }

// reserve makes room for n more, so that it is not made in steps.
func (w *window) reserve(n int) {
	if len(w.ids) == 0 {
		w.ids, w.held = slices.Grow(w.ids, n), slices.Grow(w.held, n)
	}
}

// add puts a delivery under the next packet id that is free.
func (w *window) add(d domain.Delivery) uint16 {
	for {
		w.last++
		if w.last != 0 && !slices.Contains(w.ids[w.first:], w.last) {
			break
		}
	}
	if w.first > 0 && len(w.ids) == cap(w.ids) {
		w.ids = append(w.ids[:0], w.ids[w.first:]...)
		n := copy(w.held, w.held[w.first:])
		clear(w.held[n:])
		w.held, w.first = w.held[:n], 0
	}
	w.ids, w.held = append(w.ids, w.last), append(w.held, d)
	return w.last
}

// remove takes out the delivery of a packet id; ok is false if there is none.
func (w *window) remove(id uint16) (d domain.Delivery, ok bool) {
	i := slices.Index(w.ids[w.first:], id)
	if i < 0 {
		return domain.Delivery{}, false
	}
	i += w.first
	d = w.held[i]
	if i == w.first {
		w.held[i] = domain.Delivery{}
		w.first++
	} else {
		w.ids, w.held = slices.Delete(w.ids, i, i+1), slices.Delete(w.held, i, i+1)
	}
	if w.first == len(w.ids) {
		w.first, w.ids, w.held = 0, w.ids[:0], w.held[:0]
		if cap(w.held) > 4 { // an idle connection is to be small
			w.ids, w.held = nil, nil
		}
	}
	return d, true
}
