package coherence

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"

	"github.com/pgcache/go/internal/notify"
)

// hidden finds the keys that messages name by their hashes, where keys are hidden from those who may listen on the channel.
// It knows every key of which the tracker has anything: an entry, or an operation that is under way.
type hidden struct {
	secret atomic.Pointer[[]byte] // nil: keys are not hidden

	// switching is set while Hide goes from one secret to another: messages may name by one what is known by the other.
	switching atomic.Bool

	mu     sync.Mutex
	keys   map[string]Key
	dropAt int // the number of keys at which dropHidden is due
}

// leastDropAt is the smallest number of keys at which dropHidden and dropTagged look whether they are still needed.
const leastDropAt = 1024

// add makes k known. It is called under the lock of the stripe of k, before the operation sends its statement: so a message
// about k that finds nothing here came before the operation began.
func (h *hidden) add(k Key) {
	if h.secret.Load() == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if secret := h.secret.Load(); secret != nil {
		h.keys[notify.HiddenKey(*secret, k.Row())] = k
	}
}

// find returns the key that name is the hash of, if it is known.
func (h *hidden) find(name string) (k Key, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k, ok = h.keys[name]
	return k, ok
}

// takeDue returns a copy of all keys if dropHidden is due, else nil. The caller sets dropAt anew.
func (h *hidden) takeDue() map[string]Key {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.keys) < h.dropAt {
		return nil
	}
	h.dropAt = math.MaxInt // nobody else begins before the caller is done
	all := make(map[string]Key, len(h.keys))
	for name, k := range h.keys {
		all[name] = k
	}
	return all
}

// Hide says with which secret messages hash keys; nil: keys are not hidden. Messages of this secret could not find operations and
// entries that are known by another one, so if it has changed everything is forgotten.
func (t *Tracker) Hide(secret []byte) {
	h := &t.hidden
	if own := h.secret.Load(); own == nil && secret == nil || own != nil && secret != nil && string(*own) == string(secret) {
		return
	}
	h.switching.Store(true)
	defer h.switching.Store(false)
	h.mu.Lock()
	h.keys, h.dropAt = map[string]Key{}, leastDropAt
	if h.secret.Store(nil); secret != nil {
		h.secret.Store(&secret)
	}
	h.mu.Unlock()
	g := &t.groups
	g.mu.Lock()
	g.byTag, g.size = nil, 0 // the names of tags have changed; entries that have tags are forgotten below
	g.mu.Unlock()
	// An operation makes its key known and reads the epoch while it holds its stripe's lock. Once this goroutine has taken each lock,
	// every operation of the old secret has read the old epoch, which Forget ends.
	for i := range t.stripes {
		t.stripes[i].wait()
	}
	t.Forget()
}

// wait waits for the operation that has the stripe's lock.
func (s *stripe) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// resolve returns the key of an item of m, where it is called name. Not ok: nothing is kept of it.
func (t *Tracker) resolve(m *notify.Message, name string, key func(row string) Key) (k Key, ok bool) {
	if !m.Hidden {
		return key(name), true
	}
	return t.hidden.find(name)
}

// errHidden is the error of a message whose keys this node can't find yet.
var errHidden = errors.New("a message hides its keys, and this node does not know the secret yet")

// dropHidden drops the keys of which nothing is kept any more, when their number has doubled since the last time: the local cache
// does not report what it evicts.
func (t *Tracker) dropHidden() {
	all := t.hidden.takeDue()
	if all == nil {
		return
	}
	for name, k := range all {
		s := t.stripe(k)
		s.mu.Lock()
		if s.reads[k] == nil && s.loads[k] == nil && s.writers[k] == nil && s.watches[k] == nil && s.txs[k] == nil && t.local.Get(k) == nil {
			t.hidden.mu.Lock()
			delete(t.hidden.keys, name)
			t.hidden.mu.Unlock()
		}
		s.mu.Unlock()
	}
	t.hidden.mu.Lock()
	defer t.hidden.mu.Unlock()
	t.hidden.dropAt = max(leastDropAt, 2*len(t.hidden.keys))
}
