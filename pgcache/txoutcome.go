package pgcache

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// txPart is one write or removal in a transaction of the caller's. It keeps entries out of memory until End is called, or the
// notification of what was committed has been applied.
type txPart interface {
	Done() bool
	End()
}

var (
	_ txPart = (*coherence.TxWrite)(nil)
	_ txPart = (*coherence.TxRemoval)(nil)
)

// openTxs are the transactions that have written through WithTx and whose outcome is not known. It is asked for because a rollback
// sends no notification. The zero value has none.
type openTxs struct {
	mu     sync.Mutex
	parts  map[string][]txPart // by the transaction's id
	asking bool                // a goroutine asks for their outcomes
}

const (
	// txLook is how often the outcomes are asked for while some are not known.
	txLook = time.Second
	// txWatch is for how long after its last write through WithTx a transaction's commit is published within a window. A later commit
	// is noticed when its outcome is asked for, a second later at most, and then published.
	txWatch = 10 * time.Second
)

// add notes parts of the transaction xid. inline says that its COMMIT publishes them: then there is nothing to look for.
func (o *openTxs) add(c *Cache, xid string, parts []txPart, inline bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.parts == nil {
		o.parts = make(map[string][]txPart)
	}
	o.parts[xid] = append(o.parts[xid], parts...)
	if !inline {
		c.window.WatchTx(txWatch, o.anyUnknown)
	}
	if !o.asking {
		o.asking = c.goDo(func() { o.ask(c) })
	}
}

// ask asks for the outcomes until every transaction has ended. While the database does not answer, the keys stay out of memory.
func (o *openTxs) ask(c *Cache) {
	ticker := time.NewTicker(txLook)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return
		}
		xids := o.open()
		if xids == nil {
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
		ended, err := c.store.EndedTransactions(ctx, xids)
		cancel()
		if err != nil {
			continue
		}
		if o.end(ended) {
			c.window.Watch(txLook)
		}
	}
}

// open returns the ids of the transactions with parts that have not ended. Where it returns nil it has noted that asking ends.
func (o *openTxs) open() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for xid, parts := range o.parts {
		if !anyOpen(parts) {
			delete(o.parts, xid)
		}
	}
	if len(o.parts) == 0 {
		o.asking = false
		return nil
	}
	return slices.Collect(maps.Keys(o.parts))
}

// anyUnknown reports whether a transaction may be open, or its commit unpublished. On its way it forgets transactions that are neither.
func (o *openTxs) anyUnknown() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for xid, parts := range o.parts {
		if anyOpen(parts) {
			return true
		}
		delete(o.parts, xid)
	}
	return false
}

func anyOpen(parts []txPart) bool {
	return slices.ContainsFunc(parts, func(p txPart) bool { return !p.Done() })
}

// end ends the parts of transactions that have ended. unpublished says that one of them may have committed and nobody has flushed since:
// its notification has not come.
func (o *openTxs) end(xids []string) (unpublished bool) {
	var parts []txPart
	o.mu.Lock()
	for _, xid := range xids {
		parts = append(parts, o.parts[xid]...)
		delete(o.parts, xid)
	}
	o.mu.Unlock()
	for _, p := range parts { // without the lock: the end of a removal looks through all that memory holds
		unpublished = unpublished || !p.Done()
		p.End()
	}
	return unpublished
}
