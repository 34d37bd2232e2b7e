package pgcachetest

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testserver"
)

// TB is what the helpers need of a test: *testing.T, *testing.B, *testing.F and Ginkgo's GinkgoT() have it.
type TB interface {
	Helper()
	Cleanup(f func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Main returns m, a *testing.M, whose Run also stops the throw-away server. Without Main the server
// ends with the process. Main is needed where tests look for leaked goroutines:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgcachetest.Main(m)) }
func Main(m interface{ Run() int }) interface{ Run() int } { return tests{m} }

type tests struct{ m interface{ Run() int } }

func (t tests) Run() int {
	code := t.m.Run()
	if err := testserver.Close(); err != nil {
		log.Print(err)
		code = max(code, 1)
	}
	return code
}

// Do calls f with a TB of its own, for an Example or a program that has no test. When f has ended Do calls what was given to
// Cleanup. It returns the failures as an error.
func Do(f func(t TB)) error {
	p := &program{}
	p.call(func() { f(p) })
	for next := p.pop(); next != nil; next = p.pop() {
		p.call(next)
	}
	return errors.Join(p.failed...)
}

// program is the TB that Do gives to f.
type program struct {
	mu      sync.Mutex
	failed  []error
	cleanup []func()
}

// fatal is what Fatalf panics with: the panic ends the function that call has called.
type fatal struct{}

// call calls f and returns when f has returned or Fatalf has ended it.
func (p *program) call(f func()) {
	defer func() {
		if r := recover(); r != nil && r != (fatal{}) {
			panic(r)
		}
	}()
	f()
}

// pop returns the last function that was given to Cleanup and has not been called; nil: there is none.
func (p *program) pop() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.cleanup)
	if n == 0 {
		return nil
	}
	f := p.cleanup[n-1]
	p.cleanup = p.cleanup[:n-1]
	return f
}

func (p *program) Helper() {}

func (p *program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanup = append(p.cleanup, f)
}

func (p *program) Logf(format string, args ...any) { log.Printf(format, args...) }

func (p *program) Errorf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = append(p.failed, fmt.Errorf(format, args...))
}

func (p *program) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	panic(fatal{})
}

// StartPostgres is for programs that are no tests, such as a demo: it returns how to reach the Postgres that DB would use,
// and what stops it if it was started. logf, which may be nil, gets a line that says which one was taken.
func StartPostgres(ctx context.Context, logf func(format string, args ...any)) (dsn string, stop func() error, err error) {
	s, err := pgserver.Start(ctx, logf)
	if err != nil {
		return "", nil, err
	}
	return s.DSN, s.Close, nil
}
