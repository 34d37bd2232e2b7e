package httpmiddleware

import "net/http"

// Wait waits until what the requests so far have brought is stored.
func Wait(h http.Handler) { h.(*middleware).stores.Wait() }

// Passes is how many resources are known not to be stored, Forget forgets them.
func Passes(h http.Handler) int {
	p := &h.(*middleware).passes
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.until)
}

// Forget forgets what is known not to be stored.
func Forget(h http.Handler) {
	p := &h.(*middleware).passes
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.until)
}
