package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgcache/go/internal/store"
)

func TestInspect(t *testing.T) {
	forDrivers(t, func(t *testing.T, s *table) {
		tagged := row("a:tagged", `{"n": 1}`, 7)
		tagged.Tags, tagged.TTL, tagged.Stale = []string{"x,y", `"z"`}, time.Hour, time.Minute
		forever := row("a:forever", "raw", 8)
		forever.TTL = store.Never
		gone := row("a:gone", "", 9)
		gone.Value = nil
		s.put(tagged, forever, gone, row("a\U0010ffff", "v", 1), row("a;", "v", 1), row("b", "v", 1))

		e, found, err := s.Inspect(t.Context(), "a:tagged", 100)
		if err != nil || !found || string(e.Value) != `{"n": 1}` || e.Version != 7 || e.Gone() || e.Forever || e.Bytes != 8 || e.Stored < 8 ||
			e.Remaining < 59*time.Minute || e.Age < 0 || e.Age > time.Minute || !slices.Equal(e.Tags, tagged.Tags) || e.Stale < time.Hour {
			t.Errorf("%+v, %v, %v", e, found, err)
		}
		if e, _, err := s.Inspect(t.Context(), "a:tagged", 7); err != nil || e.Value != nil || e.Bytes != 8 || e.Tombstone {
			t.Errorf("larger than asked for: %+v, %v", e, err)
		}
		if e, found, err := s.Inspect(t.Context(), "a:gone", 7); err != nil || !found || !e.Tombstone || !e.Gone() {
			t.Errorf("a tombstone: %+v, %v", e, err)
		}
		if e, found, err := s.Inspect(t.Context(), "none", 7); err != nil || found {
			t.Errorf("no row: %+v, %v", e, err)
		}

		for _, test := range []struct {
			prefix, after string
			gone          bool
			most          int
			want          []string
		}{
			{"", "", false, 10, []string{"a:forever", "a:tagged", "a;", "a\U0010ffff", "b"}},
			{"a:", "", false, 10, []string{"a:forever", "a:tagged"}},
			{"a:", "", true, 10, []string{"a:forever", "a:gone", "a:tagged"}},
			{"a:", "a:forever", true, 1, []string{"a:gone"}},
			{"a\U0010ffff", "", true, 10, []string{"a\U0010ffff"}},
			{"a:%", "", true, 10, nil},
		} {
			list, err := s.List(t.Context(), test.prefix, test.after, test.gone, test.most)
			var keys []string
			for _, e := range list {
				keys = append(keys, e.Key)
			}
			if err != nil || !slices.Equal(keys, test.want) {
				t.Errorf("%+v: %q, %v", test, keys, err)
			}
		}

		at, err := s.WrittenAt(t.Context(), []string{"b", "none", `"`, "a:gone"})
		if err != nil || len(at) != 2 || at["a:gone"].Version != 9 || time.Since(at["b"].At).Abs() > time.Hour {
			t.Errorf("%v, %v", at, err)
		}
		f, err := s.Figures(t.Context())
		if err != nil || f.EntriesTotal < f.EntriesBytes || f.EntriesBytes == 0 || f.Pending != 0 || f.ServerVersion == "" || f.Database == "" {
			t.Errorf("%+v, %v", f, err)
		}
		if _, err := s.SessionOf(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
}
