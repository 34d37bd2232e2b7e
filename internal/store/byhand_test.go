package store_test

import (
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
)

// TestChangedByHandIsWritten: a row that somebody changes by hand was written then, whenever it was written before. Who removes what was
// written until a moment, and has fenced the loads from before, leaves it:
//
//	fence      load looks: v1, expired      UPDATE by hand      if the row went, the load would store what is older
func TestChangedByHandIsWritten(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		ctx := t.Context()
		old := row("k", "old", 7)
		old.TTL = time.Microsecond
		s.put(old)
		point, err := s.Ago(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.FenceLoads(ctx); err != nil {
			t.Fatal(err)
		}
		look, err := s.Look(ctx, []string{"k"}, false)
		if err != nil || look.Rows[0].Live() {
			t.Fatal(look, err)
		}
		s.exec("UPDATE " + s.Names.Table() + " SET value = 'by hand', expires_at = NULL WHERE key = 'k'")
		if n, err := s.Trim(ctx, point, 10); err != nil || n != 0 {
			t.Errorf("%d rows are removed, %v", n, err)
		}
		w := row("k", "older", 8)
		w.Fence, w.Incarnation, w.Looked, w.Snapshot = look.Rows[0].Version, look.Incarnation, look.At, look.Snapshot
		if out, err := s.PutLoaded(ctx, []store.Write{w}, false); err != nil || out.Stored[0] {
			t.Errorf("a load stores over what was changed by hand since it looked: %+v, %v", out, err)
		}
		// Whoever says when it was written is believed.
		s.exec("UPDATE " + s.Names.Table() + " SET value = 'by hand', written_at = 'yesterday' WHERE key = 'k'")
		if n, err := s.Trim(ctx, point, 10); err != nil || n != 1 {
			t.Errorf("%d rows are removed, %v", n, err)
		}
	})
}
