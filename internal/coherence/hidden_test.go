package coherence

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
)

func hiddenTracker(t *testing.T) (*Tracker, memory) {
	t.Helper()
	local := memory{}
	tr := newTracker(local)
	tr.Hide([]byte("secret"))
	return tr, local
}

// keep reads k and keeps it.
func keep(t *testing.T, tr *Tracker, k Key) {
	t.Helper()
	if !fill(tr, k, 1, 0) {
		t.Fatalf("%v is not kept", k)
	}
}

func hiddenMessage(secret string, k Key) notify.Message {
	return notify.Message{Hidden: true, Body: one(notify.HiddenKey([]byte(secret), k.Row()), 2)}
}

func noKey(string) Key { return Key{Name: "a hash was taken for a key"} }

// TestHidden: a message with a hash invalidates the key that it stands for, and no other.
func TestHidden(t *testing.T) {
	t.Parallel()
	tr, _ := hiddenTracker(t)
	a, b := Key{Namespace: "user", Name: "1"}, Key{Namespace: "user", Name: "2"}
	keep(t, tr, a)
	keep(t, tr, b)
	for _, k := range []Key{a, {Name: "never seen"}} {
		if err := tr.Apply(hiddenMessage("secret", k), noKey); err != nil {
			t.Fatal(err)
		}
	}
	if tr.Hit(a, Now()) != nil || tr.Hit(b, Now()) == nil {
		t.Error("the wrong key was invalidated")
	}
	if n := tr.Invalidations.Load(); n != 2 {
		t.Errorf("%d invalidations are counted", n)
	}
}

// TestHiddenSecret: who does not know the secret, or gets another one, forgets everything.
func TestHiddenSecret(t *testing.T) {
	t.Parallel()
	tr, _ := hiddenTracker(t)
	k := Key{Name: "k"}
	keep(t, tr, k)
	tr.Hide([]byte("secret"))
	if tr.Hit(k, Now()) == nil {
		t.Error("the same secret again made it forget")
	}
	tr.Hide([]byte("other"))
	if tr.Hit(k, Now()) != nil {
		t.Error("an entry of another secret is kept")
	}
	keep(t, tr, k)
	tr.Hide(nil)
	keep(t, tr, k)
	if err := tr.Apply(hiddenMessage("other", k), noKey); !errors.Is(err, errHidden) || tr.Hit(k, Now()) != nil {
		t.Errorf("a message that can't be understood left an entry: %v", err)
	}
}

// TestHiddenWhileItChanges: a message that comes while the secret changes names keys that can't be found any more, or not yet. Once it
// is applied, nothing from before is served.
func TestHiddenWhileItChanges(t *testing.T) {
	t.Parallel()
	for says, secret := range map[string]string{"by the new secret": "other", "by the old one": "secret"} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			tr, _ := hiddenTracker(t)
			k := Key{Name: "k"}
			keep(t, tr, k)
			tr.groups.mu.Lock() // Hide waits in the midst
			changed := make(chan struct{})
			go func() {
				defer close(changed)
				tr.Hide([]byte("other"))
			}()
			for s := tr.hidden.secret.Load(); s == nil || string(*s) != "other"; s = tr.hidden.secret.Load() {
				runtime.Gosched()
			}
			if err := tr.Apply(hiddenMessage(secret, k), noKey); err != nil {
				t.Error(err)
			}
			if tr.Hit(k, Now()) != nil {
				t.Error("what the message was about is served")
			}
			tr.groups.mu.Unlock()
			<-changed
			keep(t, tr, k)
		})
	}
}

// TestHiddenReads: a read that is under way when the secret changes fills nothing.
func TestHiddenReads(t *testing.T) {
	t.Parallel()
	tr, _ := hiddenTracker(t)
	k := Key{Name: "k"}
	f, _ := tr.BeginRead(k)
	tr.Hide([]byte("other"))
	f.Finish(store.Row{Version: 1}, nil, entryOf(1))
	if tr.Hit(k, Now()) != nil {
		t.Error("no message of the new secret could have named it")
	}
}

// TestHiddenBounds: keys of which nothing is kept any more are dropped, and no others.
func TestHiddenBounds(t *testing.T) {
	t.Parallel()
	tr, local := hiddenTracker(t)
	kept := Key{Name: "kept"}
	keep(t, tr, kept)
	read := Key{Name: "under way"}
	f, _ := tr.BeginRead(read)
	for i := range 20 * leastDropAt {
		k := Key{Name: fmt.Sprint(i)}
		keep(t, tr, k)
		local.Delete(k) // as an eviction does
	}
	if n := len(tr.hidden.keys); n > leastDropAt+2 {
		t.Errorf("%d keys are known, 2 are needed", n)
	}
	for _, k := range []Key{kept, read} {
		if err := tr.Apply(hiddenMessage("secret", k), noKey); err != nil {
			t.Fatal(err)
		}
	}
	f.Finish(store.Row{Version: 1}, nil, entryOf(1))
	if tr.Hit(kept, Now()) != nil || tr.Hit(read, Now()) != nil {
		t.Error("a key that was needed is not known")
	}
}
