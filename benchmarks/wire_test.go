package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// server listens and gives every connection to serve.
func server(t *testing.T, serve func(c net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

func echo(c net.Conn) { io.Copy(c, c) }

// dial connects through a wire.
func dial(t *testing.T, addr string) (*wire, net.Conn) {
	t.Helper()
	w, err := newWire("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	c, err := net.Dial("tcp", w.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return w, c
}

func TestWireTakesItsTimeARoundTrip(t *testing.T) {
	t.Parallel()
	_, c := dial(t, server(t, echo))
	for range 50 {
		begun := time.Now()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 2*wireDelay {
			t.Fatalf("a round trip took %v, less than %v", took, 2*wireDelay)
		}
	}
}

// In a bubble of its own time: every message takes its own time and waits for nothing else.
func TestWireDelaysEachMessageByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := begin(time.Sleep)
		defer w.close()
		client, clientEnd := net.Pipe()
		server, serverEnd := net.Pipe()
		go w.link(clientEnd, serverEnd)

		const n = 200
		const apart = 50 * time.Microsecond
		start := time.Now()
		pass := func(from, to net.Conn) {
			go func() {
				for i := range n {
					from.Write([]byte{byte(i)})
					time.Sleep(apart)
				}
			}()
			for i := range n {
				var b [1]byte
				if _, err := io.ReadFull(to, b[:]); err != nil || b[0] != byte(i) {
					t.Errorf("message %d is %d, %v", i, b[0], err)
				}
				// One that is slow may hold up those behind it, but by no more than the jitter.
				if took := time.Since(start) - time.Duration(i)*apart; took < wireDelay || took > wireDelay+wireJitter {
					t.Errorf("message %d took %v, want %v and up to %v more", i, took, wireDelay, wireJitter)
				}
			}
		}
		pass(client, server)
		start = time.Now()
		pass(server, client) // news that nobody asked for: half a round trip
		client.Close()
		if _, err := server.Read(make([]byte, 1)); err == nil {
			t.Error("the other end lives on")
		}
	})
}

func TestWireLosesNothing(t *testing.T) {
	t.Parallel()
	_, c := dial(t, server(t, echo))
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	go c.Write(want)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("3 MiB came back changed, %v", err)
	}
}

func TestWireEndsWithEitherSide(t *testing.T) {
	t.Parallel()
	bye := make(chan error, 1)
	_, c := dial(t, server(t, func(c net.Conn) {
		_, err := io.ReadFull(c, make([]byte, 100))
		bye <- err
	}))
	c.Write([]byte("hello"))
	c.Close()
	if err := <-bye; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the server saw %v after the client had gone", err)
	}

	_, c = dial(t, server(t, func(c net.Conn) { c.Write([]byte("bye")) }))
	if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
		t.Errorf("got %q, %v of a server that has gone", got, err)
	}

	w, c := dial(t, server(t, echo))
	c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a closed wire delivers")
	}
}
