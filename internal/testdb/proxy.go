package testdb

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgcache/go/internal/pgserver"
)

// dialLimit is how long the server may take to accept a connection.
const dialLimit = 10 * time.Second

// Proxy is a TCP link to a server that tests can cut, freeze and slow down. It starts out as a good link. Its methods are
// safe for concurrent use.
type Proxy struct {
	dsn             string
	network, server string // where it leads
	listener        net.Listener
	wg              sync.WaitGroup

	mu     sync.Mutex
	cut    bool
	thawed [2]chan struct{} // of each Direction, closed unless frozen
	delay  time.Duration
	links  map[*link]bool
}

// Direction is one half of a link.
type Direction int

// The two halves of a link.
const (
	ToServer Direction = iota
	ToClient
)

// link is one client's connection, and the one to the server that was opened for it.
type link struct {
	client, server net.Conn      // server is nil until it answered
	done           chan struct{} // closed when the link is cut
}

// NewProxy is StartProxy for a test. The proxy is closed when the test ends.
func NewProxy(tb testing.TB, dsn string) *Proxy {
	tb.Helper()
	p, err := StartProxy(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

// StartProxy returns a proxy in front of the server that dsn names (of several hosts, the first), on a port of 127.0.0.1. Close ends it.
func StartProxy(dsn string) (*Proxy, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("pgcache: proxy: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		return nil, fmt.Errorf("pgcache: proxy: %w", err)
	}
	p := &Proxy{listener: listener, links: map[*link]bool{}}
	p.network, p.server = pgconn.NetworkAddress(config.Host, config.Port)
	p.dsn = pgserver.WithAddress(dsn, "127.0.0.1", listener.Addr().(*net.TCPAddr).Port)
	if p.network == "unix" {
		p.dsn = WithParam(p.dsn, "sslmode", "disable") // a server has no TLS on its socket
	}
	for d := range p.thawed {
		p.thawed[d] = make(chan struct{})
		close(p.thawed[d])
	}
	p.wg.Go(p.accept)
	return p, nil
}

// Close cuts all connections and waits until nothing of the proxy is left.
func (p *Proxy) Close() {
	p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

// Lead makes connections from now on lead to the server that dsn names. Those that there are stay where they are.
func (p *Proxy) Lead(dsn string) error {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("pgcache: proxy: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.server = pgconn.NetworkAddress(config.Host, config.Port)
	return nil
}

// DSN leads to the server through the proxy.
func (p *Proxy) DSN() string { return p.dsn }

// Cut resets all connections, and every new one as soon as it is made, until Restore. (The port stays ours meanwhile:
// with nobody listening, somebody else could get it.)
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for l := range p.links {
		l.reset()
	}
	clear(p.links)
}

// Restore ends a Cut.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Freeze makes a half-open link of every connection, old or new: what either side sends after Freeze has returned does
// not arrive before Thaw, nor is the end of a side passed on. Connecting still succeeds, as it does in reality.
func (p *Proxy) Freeze() {
	p.FreezeHalf(ToServer)
	p.FreezeHalf(ToClient)
}

// FreezeHalf is Freeze for what is sent in one direction.
func (p *Proxy) FreezeHalf(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed[d]:
		p.thawed[d] = make(chan struct{})
	default: // frozen already
	}
}

// Thaw ends a Freeze, of either half. What was sent in the meantime arrives now.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.thawed {
		select {
		case <-p.thawed[d]:
		default:
			close(p.thawed[d])
		}
	}
}

// Delay holds up everything that passes, in both directions, by d. What arrives while something is being held up waits
// for that too. Zero ends it.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // that client has gone again
		}
		p.wg.Go(func() { p.serve(conn) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	l := &link{client: client, done: make(chan struct{})}
	defer client.Close()
	if !p.add(l) {
		return
	}
	defer p.remove(l)
	p.mu.Lock()
	network, address := p.network, p.server
	p.mu.Unlock()
	server, err := net.DialTimeout(network, address, dialLimit)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.connected(l, server) {
		return
	}

	// The first direction that ends takes the other with it: neither client nor server closes only half.
	var upstream sync.WaitGroup
	upstream.Go(func() {
		p.pump(l, ToServer, server, client)
		client.Close()
		server.Close()
	})
	p.pump(l, ToClient, client, server)
	client.Close()
	server.Close()
	upstream.Wait()
}

// pump passes on what src sends until a side closes.
func (p *Proxy) pump(l *link, d Direction, dst, src net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, end := src.Read(buffer)
		if !p.hold(l, d) {
			return
		}
		if _, err := dst.Write(buffer[:n]); err != nil || end != nil {
			return
		}
	}
}

// hold returns when what was just read may pass, or false when the link was cut. Whatever is sent after a Freeze is read
// after it, so it meets the closed gate here.
func (p *Proxy) hold(l *link, d Direction) bool {
	_, delay := p.state(d)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.done:
			return false
		}
	}
	for {
		thawed, _ := p.state(d)
		select {
		case <-l.done:
			return false
		case <-thawed:
		}
		if now, _ := p.state(d); now == thawed { // not frozen again meanwhile
			return true
		}
	}
}

func (p *Proxy) state(d Direction) (thawed chan struct{}, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.thawed[d], p.delay
}

// add makes a link known to Cut. During one it resets the link instead and returns false.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		l.reset()
		return false
	}
	p.links[l] = true
	return true
}

// connected adds the connection to the server. It returns false if the link was cut meanwhile.
func (p *Proxy) connected(l *link, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.server = server
	return p.links[l]
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// reset closes both connections without a farewell, as a network that fails does. The caller holds the Proxy's mu.
func (l *link) reset() {
	for _, conn := range []net.Conn{l.client, l.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		if conn != nil {
			conn.Close()
		}
	}
	close(l.done)
}
