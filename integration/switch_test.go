package integration

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// switchboard is a TCP link to one of several servers: new connections go where it was last switched to, and those that
// there are stay, as when an address is moved from a primary to another one while both are up.
type switchboard struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	to    string
	conns []net.Conn
}

// newSwitchboard returns a switchboard that leads to s, and the DSN that leads through it.
func newSwitchboard(t *testing.T, s *server) (sw *switchboard, dsn string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	sw = &switchboard{listener: l, to: u.Host}
	sw.wg.Go(sw.accept)
	t.Cleanup(func() {
		l.Close()
		sw.mu.Lock()
		for _, c := range sw.conns {
			c.Close()
		}
		sw.mu.Unlock()
		sw.wg.Wait()
	})
	u.Host = l.Addr().String()
	return sw, u.String()
}

// turn makes new connections go to s.
func (sw *switchboard) turn(t *testing.T, s *server) {
	t.Helper()
	u, err := url.Parse(s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.to = u.Host
}

func (sw *switchboard) accept() {
	for {
		client, err := sw.listener.Accept()
		if err != nil {
			return
		}
		sw.mu.Lock()
		server, err := net.Dial("tcp", sw.to)
		if err == nil {
			sw.conns = append(sw.conns, client, server)
		}
		sw.mu.Unlock()
		if err != nil {
			client.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
			sw.wg.Go(func() {
				_, _ = io.Copy(way[0], way[1]) // the end of either is the end of both
				way[0].Close()
				way[1].Close()
			})
		}
	}
}
