package sturdyc_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/adapters/internal/upstream"
	pgsturdyc "github.com/pgcache/go/adapters/sturdyc"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// All of sturdyc's tests with a distributed storage, on ours.
func TestUpstream(t *testing.T) {
	t.Parallel()
	upstream.Run(t, upstream.Suite{
		Module: "github.com/viccon/sturdyc",
		Files:  []string{"distribution_test.go", "sturdyc_test.go"},
		Cut:    [][2]string{{"type mockStorage struct", "func TestDistributedStorage("}},
		Replace: []string{
			"&mockStorage{}", "newMockStorage(t)",
			// Their observer blocks after one call while it holds its lock, which works only with a storage faster than ours.
			"NewFetchObserver(1)", "NewFetchObserver(100)",
			"\t\"strconv\"\n\t\"sync\"\n", "\t\"strconv\"\n",
		},
		Run: "^(TestDistributed|TestPartial|TestReturns|TestGetOrFetch)",
		Min: 14,
	})
}

func TestStorage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := pgsturdyc.New(pgcachetest.New(t, pgcache.Options{MaxValueBytes: 1000}))
	var errs []error
	s.OnError = func(err error) { errs = append(errs, err) }
	odd := string(bytes.Repeat([]byte("k"), 4000)) + "\xff"

	s.SetBatch(ctx, map[string][]byte{"a": []byte("1"), odd: []byte("2"), "": {}})
	want := map[string][]byte{"a": []byte("1"), odd: []byte("2"), "": nil}
	if diff := cmp.Diff(want, s.GetBatch(ctx, []string{"a", odd, "", "none", "a"})); diff != "" {
		t.Errorf("GetBatch: %s", diff)
	}
	s.DeleteBatch(ctx, []string{"a", "none"})
	s.Delete(ctx, odd)
	if got := s.GetBatch(ctx, []string{"a", odd}); len(got) > 0 {
		t.Errorf("after DeleteBatch: %v", got)
	}
	if len(errs) > 0 {
		t.Errorf("errors: %v", errs)
	}
	// One that is too large does not keep the others out.
	s.SetBatch(ctx, map[string][]byte{"large": make([]byte, 1001), "small": []byte("3")})
	if got, found := s.Get(ctx, "small"); !found || string(got) != "3" {
		t.Errorf("beside one that is too large: %q, %v", got, found)
	}
	if len(errs) != 1 || !errors.Is(errs[0], pgcache.ErrValueTooLarge) {
		t.Errorf("errors: %v", errs)
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	s := pgsturdyc.New(node.Cache)
	var errs []error
	s.OnError = func(err error) { errs = append(errs, err) }
	node.Faults.Fail(nil)
	defer node.Faults.Mend()
	ctx := context.Background()
	if _, found := s.Get(ctx, "a"); found {
		t.Error("Get found something")
	}
	if got := s.GetBatch(ctx, []string{"a"}); len(got) > 0 {
		t.Errorf("GetBatch: %v", got)
	}
	s.Set(ctx, "a", nil)
	s.SetBatch(ctx, map[string][]byte{"a": nil})
	s.Delete(ctx, "a")
	if len(errs) != 5 {
		t.Errorf("%d errors were reported, want 5: %v", len(errs), errs)
	}
}
