package broker

import (
	"net"
	"net/netip"
	"sync"
)

// gate counts the open sockets, in total and per address. A limit of 0 is none.
type gate struct {
	limit, limitEach int

	mu    sync.Mutex
	total int
	each  map[netip.Prefix]int
}

func newGate(limit, limitEach int) *gate {
	return &gate{limit: limit, limitEach: limitEach, each: make(map[netip.Prefix]int)}
}

// enter counts a socket in. leave, which is to be called once, counts it out; it is nil if the socket must not stay,
// and refusal then says why.
func (g *gate) enter(addr net.Addr) (leave func(), refusal string) {
	from := network(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.limit > 0 && g.total >= g.limit:
		return nil, "total"
	case g.limitEach > 0 && g.each[from] >= g.limitEach:
		return nil, "address"
	}
	g.total++
	if g.limitEach > 0 {
		g.each[from]++
	}
	return func() { g.leave(from) }, ""
}

func (g *gate) leave(from netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.limitEach == 0 {
		return
	}
	if g.each[from]--; g.each[from] == 0 {
		delete(g.each, from)
	}
}

// network gives what counts as one address: an IPv4 address, or the /64 network that an IPv6 host has to itself.
func network(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // fails only for an address without a value, which the zero prefix stands for
	return p
}
