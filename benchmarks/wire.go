package main

import (
	"container/heap"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A wire is a TCP link that takes time, as a network does: what is sent arrives wireDelay later, plus up to wireJitter,
// in each direction. A round trip takes 1.5 ms and up to 0.5 ms more. Nothing waits for anything but its own time:
// requests that are sent together travel together, and a notification needs no request to travel.
const (
	wireDelay  = 750 * time.Microsecond
	wireJitter = 250 * time.Microsecond
)

type wire struct {
	network, target string
	listener        net.Listener
	wg              sync.WaitGroup
	sleep           func(d time.Duration)
	timer           *sleeper // behind sleep; nil where that needs no closing

	mu     sync.Mutex
	due    dueHeap       // what is on its way, the next to arrive first
	more   chan struct{} // cap 1: there is something on its way again
	conns  map[net.Conn]bool
	closed bool
	done   chan struct{}
}

// newWire listens on a free port of 127.0.0.1 and leads to target.
func newWire(network, target string) (*wire, error) {
	sleep, err := newSleeper()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it takes no time
	if err != nil {
		return nil, errors.Join(err, sleep.close())
	}
	w := begin(sleep.sleep)
	w.network, w.target, w.listener, w.timer = network, target, listener, sleep
	w.wg.Go(w.accept)
	return w, nil
}

// begin returns a wire without ends.
func begin(sleep func(d time.Duration)) *wire {
	w := &wire{sleep: sleep, more: make(chan struct{}, 1), done: make(chan struct{}), conns: map[net.Conn]bool{}}
	w.wg.Go(w.deliver)
	return w
}

func (w *wire) addr() string { return w.listener.Addr().String() }

// close cuts all connections and returns when nothing is left of the wire.
func (w *wire) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.done)
	}
	for c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	if w.listener != nil {
		w.listener.Close()
	}
	w.wg.Wait()
	if w.timer != nil {
		_ = w.timer.close()
	}
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			w.wg.Go(func() { w.serve(client) })
		}
	}
}

func (w *wire) serve(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), w.network, w.target)
	if err != nil {
		return
	}
	w.link(client, server)
}

// link connects both until one of them closes.
func (w *wire) link(client, server net.Conn) {
	defer client.Close()
	defer server.Close()
	if !w.keep(client, server) {
		return
	}
	defer w.forget(client, server)

	// Neither clients nor servers close only half: the first direction that ends takes the other with it.
	var directions sync.WaitGroup
	for _, d := range []*direction{{w: w, src: client, dst: server}, {w: w, src: server, dst: client}} {
		d.arrived = make(chan struct{}, 1)
		d.over = make(chan struct{})
		directions.Go(d.receive)
		directions.Go(func() {
			d.send()
			client.Close()
			server.Close()
		})
	}
	directions.Wait()
}

func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.closed
}

func (w *wire) forget(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
	}
}

// direction is one half of a connection.
type direction struct {
	w        *wire
	src, dst net.Conn
	arrived  chan struct{} // cap 1: something is due
	over     chan struct{} // closed when src has ended and all has been queued

	mu     sync.Mutex
	chunks []chunk // one waits for those before it: bytes don't overtake each other
}

type chunk struct {
	due  time.Time
	data []byte
}

// receive puts on the way what src sends, until it ends.
func (d *direction) receive() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := d.src.Read(buffer)
		if n > 0 {
			d.put(append([]byte(nil), buffer[:n]...))
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				d.dst.Close() // a link that is cut has no farewell
			}
			d.put(nil) // the end takes as long as everything before it
			return
		}
	}
}

func (d *direction) put(data []byte) {
	d.mu.Lock()
	due := time.Now().Add(wireDelay + rand.N(wireJitter))
	d.chunks = append(d.chunks, chunk{due, data})
	d.mu.Unlock()
	d.w.schedule(due, d)
}

// send hands on what has arrived, until the end of it.
func (d *direction) send() {
	for {
		select {
		case <-d.arrived:
		case <-d.w.done:
			return
		}
		for {
			data, ok := d.take()
			if !ok {
				break
			}
			if data == nil {
				return
			}
			if _, err := d.dst.Write(data); err != nil {
				return
			}
		}
	}
}

func (d *direction) take() (data []byte, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.chunks) == 0 || time.Now().Before(d.chunks[0].due) {
		return nil, false
	}
	data = d.chunks[0].data
	d.chunks = d.chunks[1:]
	return data, true
}

// schedule wakes d at due.
func (w *wire) schedule(due time.Time, d *direction) {
	w.mu.Lock()
	heap.Push(&w.due, arrival{due, d})
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// deliver wakes directions when something of theirs is due.
func (w *wire) deliver() {
	for {
		w.mu.Lock()
		wait := time.Duration(-1)
		for len(w.due) > 0 {
			if wait = time.Until(w.due[0].due); wait > 0 {
				break
			}
			d := heap.Pop(&w.due).(arrival).d
			select {
			case d.arrived <- struct{}{}:
			default: // it knows already
			}
			wait = -1
		}
		w.mu.Unlock()
		if wait > 0 {
			// What is sent meanwhile is due after this sleep: it takes wireDelay at least.
			w.sleep(min(wait, wireDelay))
			continue
		}
		select {
		case <-w.more:
		case <-w.done:
			return
		}
	}
}

type arrival struct {
	due time.Time
	d   *direction
}

// dueHeap implements heap.Interface.
type dueHeap []arrival

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(arrival)) }

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = arrival{}
	*h = (*h)[:last]
	return x
}
