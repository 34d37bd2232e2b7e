package pqdriver

import (
	"context"
	"net"
	"sync"
	"time"
)

// socket is the network connection below lib/pq and, if there is any, TLS. It can hold back what is written to it.
type socket struct {
	net.Conn

	mu      sync.Mutex
	holding bool
	held    []byte
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding {
		s.held = append(s.held, p...)
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// hold keeps what is written from now on until release.
func (s *socket) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = true
}

// release sends what was held back. If that fails the socket is closed, so that nobody waits for a reply.
func (s *socket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holding = false
	if _, err := s.Conn.Write(s.held); err != nil {
		s.Conn.Close()
	}
	s.held = s.held[:0]
}

// dialer opens lib/pq's sockets and knows them all, so that the end of ctx can close them: lib/pq itself looks at a context only
// while it dials.
type dialer struct {
	ctx context.Context

	mu      sync.Mutex
	sockets []*socket
}

// DialContext implements pq.DialerContext.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: conn}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets = append(d.sockets, s)
	if d.ctx.Err() != nil {
		conn.Close() // closeAll has been called and did not see it
	}
	return s, nil
}

// Dial implements pq.Dialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(d.ctx, network, address)
}

// DialTimeout implements pq.Dialer.
func (d *dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// closeAll frees lib/pq from whatever it waits for.
func (d *dialer) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sockets {
		s.Close()
	}
}

// last returns the socket of the connection that lib/pq settled on. It closes the others: those of hosts that were
// tried in vain, and of a server that was asked for TLS first.
func (d *dialer) last() *socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.sockets) - 1
	for _, s := range d.sockets[:n] {
		s.Close()
	}
	d.sockets = d.sockets[n:]
	return d.sockets[0]
}
