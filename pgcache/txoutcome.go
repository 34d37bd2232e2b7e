package pgcache

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// openTxs are the transactions that have written through WithTx and whose outcome is not known. The notification that a
// commit sends ends a write sooner; a rollback sends none.
type openTxs struct {
	mu      sync.Mutex
	writes  map[string][]*coherence.TxWrite // by the transaction's id
	looking bool                            // a goroutine asks for their outcomes
}

// txLook is how often the outcomes are asked for while there are some to be known.
const txLook = time.Second

// add notes writes of the transaction xid.
func (o *openTxs) add(c *Cache, xid string, writes []*coherence.TxWrite) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writes == nil {
		o.writes = make(map[string][]*coherence.TxWrite)
	}
	o.writes[xid] = append(o.writes[xid], writes...)
	if !o.looking {
		o.looking = c.goDo(func() { o.look(c) })
	}
}

// look asks until nothing is left to be known. Whatever keeps it from an answer keeps the keys out of memory, no more.
func (o *openTxs) look(c *Cache) {
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
			if !refused(err) {
				continue
			}
			// The ids are not this server's: after a failover, where no open transaction has survived.
			ended = xids
		}
		o.end(ended)
	}
}

// open returns the transactions with writes that have not ended, or nil, and then nobody looks any more.
func (o *openTxs) open() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for xid, writes := range o.writes {
		if !slices.ContainsFunc(writes, func(w *coherence.TxWrite) bool { return !w.Done() }) {
			delete(o.writes, xid)
		}
	}
	if len(o.writes) == 0 {
		o.looking = false
		return nil
	}
	return slices.Collect(maps.Keys(o.writes))
}

func (o *openTxs) end(xids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, xid := range xids {
		for _, w := range o.writes[xid] {
			w.End()
		}
		delete(o.writes, xid)
	}
}
