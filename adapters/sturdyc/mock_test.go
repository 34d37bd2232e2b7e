package sturdyc_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/viccon/sturdyc"

	pgsturdyc "github.com/pgcache/go/adapters/sturdyc"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// mockStorage is what the tests of sturdyc use in place of their own: a Storage that counts what is done with it.
type mockStorage struct {
	storage    *pgsturdyc.Storage
	cancelFunc *context.CancelFunc // called after a read

	mu               sync.Mutex
	gets, sets, dels int
}

func newMockStorage(t *testing.T) *mockStorage {
	s := pgsturdyc.New(pgcachetest.New(t, pgcache.Options{}))
	s.OnError = func(err error) { t.Errorf("the storage: %v", err) }
	return &mockStorage{storage: s}
}

// The counters are raised when the work is done, because the tests wait for them.
func (m *mockStorage) count(n *int, by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n += by
}

func (m *mockStorage) Get(ctx context.Context, key string) ([]byte, bool) {
	value, found := m.storage.Get(ctx, key)
	m.count(&m.gets, 1)
	if m.cancelFunc != nil {
		(*m.cancelFunc)()
	}
	return value, found
}

func (m *mockStorage) GetBatch(ctx context.Context, keys []string) map[string][]byte {
	records := m.storage.GetBatch(ctx, keys)
	m.count(&m.gets, 1)
	if m.cancelFunc != nil {
		(*m.cancelFunc)()
	}
	return records
}

func (m *mockStorage) Set(ctx context.Context, key string, value []byte) {
	m.storage.Set(ctx, key, value)
	m.count(&m.sets, 1)
}

func (m *mockStorage) SetBatch(ctx context.Context, records map[string][]byte) {
	m.storage.SetBatch(ctx, records)
	m.count(&m.sets, 1)
}

func (m *mockStorage) Delete(ctx context.Context, key string) {
	m.storage.Delete(ctx, key)
	m.count(&m.dels, 1)
}

func (m *mockStorage) DeleteBatch(ctx context.Context, keys []string) {
	m.storage.DeleteBatch(ctx, keys)
	m.count(&m.dels, len(keys))
}

// eventually: sturdyc writes in the background.
func (m *mockStorage) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			m.mu.Lock()
			defer m.mu.Unlock()
			t.Fatalf("%s; %d gets, %d sets, %d deletes", what, m.gets, m.sets, m.dels)
		}
	}
}

func (m *mockStorage) assertCount(t *testing.T, what string, n *int, want int) {
	t.Helper()
	m.eventually(t, what, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return *n == want
	})
}

func (m *mockStorage) assertGetCount(t *testing.T, count int) {
	t.Helper()
	m.assertCount(t, "gets", &m.gets, count)
}

func (m *mockStorage) assertSetCount(t *testing.T, count int) {
	t.Helper()
	m.assertCount(t, "sets", &m.sets, count)
}

func (m *mockStorage) assertDeleteCount(t *testing.T, count int) {
	t.Helper()
	m.assertCount(t, "deletes", &m.dels, count)
}

func (m *mockStorage) assertRecord(t *testing.T, key string) {
	t.Helper()
	m.eventually(t, "no record of "+key, func() bool {
		_, found := m.storage.Get(context.Background(), key)
		return found
	})
}

func (m *mockStorage) assertRecords(t *testing.T, ids []string, keyFn sturdyc.KeyFn) {
	t.Helper()
	for _, id := range ids {
		m.assertRecord(t, keyFn(id))
	}
}

// They are used by the tests of sturdyc alone.
var _ = []any{
	newMockStorage, (*mockStorage).assertGetCount, (*mockStorage).assertSetCount, (*mockStorage).assertDeleteCount, (*mockStorage).assertRecords,
}
