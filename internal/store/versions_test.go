package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
)

func TestNewVersion(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if v := store.NewVersion(false); v <= 0 || store.NeverKept(v) {
			t.Fatalf("%x may be kept", v)
		}
		if v := store.NewVersion(true); v <= 0 || !store.NeverKept(v) || v&1 != 0 {
			t.Fatalf("%x is never kept", v)
		}
	}
}

// TestNeverKeptIsSilent: of all that takes the place of a row, only what is never kept in memory in the place of what was not either is
// neither logged nor published, whichever statement writes it.
func TestNeverKeptIsSilent(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		ctx := t.Context()
		incarnation, looked, err := s.Incarnation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for name, write := range map[string]func(w store.Write, inline bool) (store.Written, error){
			"one": func(w store.Write, inline bool) (store.Written, error) { return s.Put(ctx, []store.Write{w}, inline) },
			"many": func(w store.Write, inline bool) (store.Written, error) {
				return s.Put(ctx, []store.Write{w, row(fmt.Sprint("new", n), "1", store.NewVersion(true))}, inline)
			},
			"load": func(w store.Write, inline bool) (store.Written, error) {
				w.Incarnation, w.Looked = incarnation, looked
				return s.PutLoaded(ctx, []store.Write{w}, inline)
			},
			"slow load": func(w store.Write, inline bool) (store.Written, error) {
				w.Incarnation, w.Looked, w.PublishNew = incarnation, looked, true
				return s.PutLoaded(ctx, []store.Write{w}, inline)
			},
			"increment": func(w store.Write, inline bool) (store.Written, error) {
				out, err := s.Increment(ctx, store.Increment{Write: w, Delta: 1}, inline)
				return out.Written, err
			},
			"absent":  func(w store.Write, inline bool) (store.Written, error) { return s.PutAbsent(ctx, w, inline) },
			"replace": func(w store.Write, inline bool) (store.Written, error) { return s.Replace(ctx, w, inline) },
			"touch":   func(w store.Write, inline bool) (store.Written, error) { return s.Touch(ctx, w, inline) },
			"delete": func(w store.Write, inline bool) (store.Written, error) {
				w.Value = nil
				return s.Put(ctx, []store.Write{w}, inline)
			},
		} {
			for _, before := range []bool{false, true} {
				for _, never := range []bool{false, true} {
					for _, inline := range []bool{false, true} {
						n++
						what := fmt.Sprintf("%s, never kept before %v and now %v, inline %v", name, before, never, inline)
						old := row(fmt.Sprint("k", n), "1", store.NewVersion(before))
						if old.Codec = "json"; name == "absent" {
							old.TTL = time.Microsecond // it has expired
						}
						s.put(old)
						w := row(old.Key, "2", store.NewVersion(never))
						w.Codec, w.Fence = "json", s.get(old.Key).Version
						// Twice: a row that took the place of another of its kind is of that kind.
						for range 2 {
							out, err := write(w, inline)
							if err != nil || !out.Stored[0] {
								t.Fatalf("%s: %+v, %v", what, out, err)
							}
							silent := before && never && name != "slow load" && name != "delete"
							if logged := out.Logged[0]; logged != (!silent && !inline) {
								t.Errorf("%s: logged is %v", what, logged)
							}
							if published := out.Published; published != (!silent && inline) {
								t.Errorf("%s: published is %v", what, published)
							}
							if version := s.get(old.Key).Version; store.NeverKept(version) != never || version&^1 != w.Version&^1 {
								t.Errorf("%s: its version is %x, written as %x", what, version, w.Version)
							}
							if name == "absent" {
								break
							}
							before, w.Version, w.Fence = never, store.NewVersion(never), s.get(old.Key).Version
						}
					}
				}
			}
		}
	})
}

// TestNeverKeptBehindAKept: whether a write is silent is judged by the row that it finds in the end, not by what its snapshot shows. A
// row that may be kept has come in between, and a node may have it in memory.
func TestNeverKeptBehindAKept(t *testing.T) {
	t.Parallel()
	w := watch(t)
	put := func(version int64, many bool) func(ctx context.Context) (store.Written, error) {
		rows := []store.Write{row("k", "v", version)}
		if many {
			rows = append(rows, row("other", "v", store.NewVersion(true)))
		}
		return w.set(rows...)
	}
	for _, many := range []bool{false, true} {
		if _, err := put(store.NewVersion(true), many)(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it is committed below
		if _, err := tx.ExecContext(t.Context(), "UPDATE "+w.object("cache_entries")+" SET version = $1, stamp = $1 WHERE key = 'k'", store.NewVersion(false)); err != nil {
			t.Fatal(err)
		}
		r := &result[store.Written]{done: make(chan struct{})}
		go func() {
			defer close(r.done)
			r.v, r.err = put(store.NewVersion(true), many)(t.Context())
		}()
		waitFor(t, "it waits for the row", w.waiting)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if out := r.get(t); !out.Logged[0] {
			t.Errorf("many %v: a row that may be in memory is written over, and nobody hears of it", many)
		}
	}
}
