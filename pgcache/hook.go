package pgcache

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// This file calls Options.OnInvalidate.

// maxHooked is how many keys wait for a call at the most. A key has at most a kilobyte, so they take some megabytes at worst.
const maxHooked = 4096

// hook is what waits for OnInvalidate, which one goroutine calls. Those that add to it, the listener's among them, never wait.
type hook struct {
	call func(keys []string) // nil: there is no OnInvalidate
	wake chan struct{}

	mu   sync.Mutex
	keys []string
	all  bool // everything was invalidated: keys stays nil until that was reported
}

// openHook starts the goroutine that calls OnInvalidate, if there is one.
func (c *Cache) openHook() {
	if c.opts.OnInvalidate == nil {
		return
	}
	c.hook.call, c.hook.wake = c.opts.OnInvalidate, make(chan struct{}, 1)
	c.local.OnInvalidated = c.invalidated
	c.goDo(c.runHook)
}

// invalidated reports keys, as the rows have them, to OnInvalidate; nil: everything. Memory must have been invalidated before, so that
// a program which reads anew in its call gets nothing older. It never blocks. It keeps keys.
func (c *Cache) invalidated(keys []string) {
	h := &c.hook
	if h.call == nil {
		return
	}
	h.mu.Lock()
	switch {
	case h.all:
	case keys == nil, len(h.keys)+len(keys) > maxHooked:
		h.all, h.keys = true, nil
	default:
		h.keys = append(h.keys, keys...)
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take returns what waits, as OnInvalidate gets it: nil keys are everything. ok is false if nothing waits.
func (h *hook) take() (keys []string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys, ok = h.keys, h.all || len(h.keys) > 0
	h.keys, h.all = nil, false
	return keys, ok
}

// runHook calls OnInvalidate until the cache is closed.
func (c *Cache) runHook() {
	finished := false
	defer func() {
		if !finished { // the program has ended the goroutine, with runtime.Goexit
			c.goDo(c.runHook)
		}
	}()
	for {
		select {
		case <-c.hook.wake:
		case <-c.ctx.Done():
			finished = true
			return
		}
		for c.ctx.Err() == nil {
			keys, ok := c.hook.take()
			if !ok {
				break
			}
			c.callHook(keys)
		}
	}
}

// callHook calls OnInvalidate, and logs a panic of it as panicText shows it.
func (c *Cache) callHook(keys []string) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("pgcache: OnInvalidate panicked", "panic", panicText(p), "stack", string(debug.Stack()))
		}
	}()
	c.hook.call(keys)
}

// panicText is the type of what was panicked with, and its text only where the runtime has made it: the program's own may quote a key.
func panicText(p any) string {
	if err, ok := p.(interface {
		error
		RuntimeError()
	}); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}
