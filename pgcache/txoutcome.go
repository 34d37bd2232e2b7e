package pgcache

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgcache/go/internal/sqlerr"
)

// openTxs are the transactions that have written through WithTx and whose outcome is not known. The notification that a
// commit sends ends a write sooner; a rollback sends none.
type openTxs struct {
	mu     sync.Mutex
	writes map[string][]txPart // by the transaction's id
	asking bool                // a goroutine asks for their outcomes
}

// txLook is how often the outcomes are asked for while there are some to be known.
const txLook = time.Second

// add notes writes of the transaction xid.
func (o *openTxs) add(c *Cache, xid string, writes []txPart) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writes == nil {
		o.writes = make(map[string][]txPart)
	}
	o.writes[xid] = append(o.writes[xid], writes...)
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
			if sqlerr.State(err) != "22023" {
				continue
			}
			// An id is not this server's yet: after a failover, where no open transaction has survived.
			ended = xids
		}
		o.end(ended)
	}
}

// open returns the transactions with writes that have not ended. With nil it notes that asking ends.
func (o *openTxs) open() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	for xid, writes := range o.writes {
		if !slices.ContainsFunc(writes, func(w txPart) bool { return !w.Done() }) {
			delete(o.writes, xid)
		}
	}
	if len(o.writes) == 0 {
		o.asking = false
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
