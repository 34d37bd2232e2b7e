package httpmiddleware

import (
	"sync"
	"time"
)

const (
	passFor   = 10 * time.Second // how long a resource is remembered
	maxPasses = 4096             // resources; beyond that those that have not expired are forgotten too
)

// passes remembers the rows of responses that were not stored, so that requests for them do not wait for each other in vain. The zero
// value is empty. It is safe for concurrent use.
type passes struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (p *passes) has(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[key]
	return ok && time.Now().Before(until)
}

func (p *passes) add(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil {
		p.until = map[string]time.Time{}
	}
	now := time.Now()
	if len(p.until) >= maxPasses {
		for k, until := range p.until {
			if now.After(until) {
				delete(p.until, k)
			}
		}
		if len(p.until) >= maxPasses {
			clear(p.until)
		}
	}
	p.until[key] = now.Add(passFor)
}
