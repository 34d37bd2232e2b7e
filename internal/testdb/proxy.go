package testdb

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
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
	thawed chan struct{} // closed unless frozen
	delay  time.Duration
	links  map[*link]bool
}

// link is one client's connection, and the one to the server that was opened for it.
type link struct {
	client, server net.Conn      // server is nil until it answered
	done           chan struct{} // closed when the link is cut
}

// NewProxy returns a proxy in front of the server that dsn names (of several hosts, the first). It is closed when the
// test ends.
func NewProxy(tb testing.TB, dsn string) *Proxy {
	tb.Helper()
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		tb.Fatalf("pgcache: proxy: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("pgcache: proxy: %v", err)
	}
	p := &Proxy{listener: listener, thawed: make(chan struct{}), links: map[*link]bool{}}
	p.network, p.server = pgconn.NetworkAddress(config.Host, config.Port)
	p.dsn = redirect(dsn, listener.Addr().(*net.TCPAddr).Port)
	if p.network == "unix" {
		p.dsn = WithParam(p.dsn, "sslmode", "disable") // a server has no TLS on its socket
	}
	close(p.thawed)
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		p.listener.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// redirect returns dsn with another host and port.
func redirect(dsn string, port int) string {
	if !pgserver.IsURL(dsn) {
		return WithParam(WithParam(dsn, "host", "127.0.0.1"), "port", strconv.Itoa(port))
	}
	// By hand: net/url would refuse the list of hosts that drivers accept.
	scheme, rest, _ := strings.Cut(dsn, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	hosts := strings.LastIndexByte(rest[:end], '@') + 1
	path, query, _ := strings.Cut(rest[end:], "?")
	params, _ := url.ParseQuery(query)
	for _, key := range []string{"host", "hostaddr", "port"} {
		params.Del(key)
	}
	dsn = scheme + "://" + rest[:hosts] + "127.0.0.1:" + strconv.Itoa(port) + path
	if len(params) > 0 {
		dsn += "?" + strings.ReplaceAll(params.Encode(), "+", "%20")
	}
	return dsn
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
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
		p.thawed = make(chan struct{})
	default: // frozen already
	}
}

// Thaw ends a Freeze. What was sent in the meantime arrives now.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
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
	server, err := net.DialTimeout(p.network, p.server, dialLimit)
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
		p.pump(l, server, client)
		client.Close()
		server.Close()
	})
	p.pump(l, client, server)
	client.Close()
	server.Close()
	upstream.Wait()
}

// pump passes on what src sends until a side closes.
func (p *Proxy) pump(l *link, dst, src net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, end := src.Read(buffer)
		if !p.hold(l) {
			return
		}
		if _, err := dst.Write(buffer[:n]); err != nil || end != nil {
			return
		}
	}
}

// hold returns when what was just read may pass, or false when the link was cut. Whatever is sent after a Freeze is read
// after it, so it meets the closed gate here.
func (p *Proxy) hold(l *link) bool {
	_, delay := p.state()
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
		thawed, _ := p.state()
		select {
		case <-l.done:
			return false
		case <-thawed:
		}
		if now, _ := p.state(); now == thawed { // not frozen again meanwhile
			return true
		}
	}
}

func (p *Proxy) state() (thawed chan struct{}, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.thawed, p.delay
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
