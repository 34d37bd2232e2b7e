package httpmiddleware

import (
	"sync"
	"time"
)

const (
	passFor   = 10 * time.Second
	maxPasses = 4096
)

// passes remembers resources whose response was not stored, so that requests for them do not wait for each other in vain.
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
