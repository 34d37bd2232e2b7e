package main

import (
	"context"
	"sort"
	"sync"
	"time"

	"github.com/pgcache/go/internal/store"
)

// sampler takes the figures of the tables, and counts what is received on the channel between two of them.
type sampler struct {
	t *table

	mu    sync.Mutex
	count counts
	hot   map[string]float64
	lost  error // the listener's connection is down
	last  store.Figures
	begun time.Time // of the interval
}

// counts are what was received.
type counts struct{ flushes, writes, invalidations, everything int64 }

// sample is what top shows of one interval. Rates are per second.
type sample struct {
	Time          time.Time `json:"time"`
	Database      string    `json:"database"`
	Server        string    `json:"server_version"`
	Rows          int64     `json:"rows"`
	DeadRows      int64     `json:"dead_rows"`
	TableBytes    int64     `json:"table_bytes"`
	TotalBytes    int64     `json:"total_bytes"`
	LogBytes      int64     `json:"log_bytes"`
	NoticesBytes  int64     `json:"notices_bytes"`
	Pending       int64     `json:"pending_changes"`
	Queue         float64   `json:"notification_queue"` // 0 to 1
	Reads         float64   `json:"index_scans_per_second"`
	Inserts       float64   `json:"inserts_per_second"`
	Updates       float64   `json:"updates_per_second"`
	Deletes       float64   `json:"deletes_per_second"`
	Hot           float64   `json:"hot_ratio"` // of the updates since the statistics began
	Flushes       float64   `json:"flushes_per_second"`
	Published     float64   `json:"published_writes_per_second"` // by the statement that wrote
	Invalidations float64   `json:"invalidations_per_second"`
	Everything    int64     `json:"everything_forgotten"` // messages in the interval
	Updated       int64     `json:"-"`                    // since the statistics began: without one there is no ratio
	HotKeys       []hotKey  `json:"hot_keys"`
	Listener      string    `json:"listener_error,omitempty"`
}

type hotKey struct {
	Key  string  `json:"key"`
	Rate float64 `json:"per_second"`
}

const (
	mostHot  = 10_000 // keys that are counted
	hotShown = 50
	fade     = 0.9 // how much of a key's count is left after a second: what is shown is about the last ten
)

// receive counts a message.
func (s *sampler) receive(h received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case h.lost != nil:
		s.lost = h.lost
		return
	case h.live:
		s.lost = nil
		return
	case h.message.Flush:
		s.count.flushes++
	default:
		s.count.writes++
	}
	h.items(func(i item) {
		s.count.invalidations++
		key := i.name(h.message.Hidden)
		if _, known := s.hot[key]; known || len(s.hot) < mostHot {
			s.hot[key]++
		}
	}, func() { s.count.everything++ })
}

// sample reads the figures, and begins the next interval.
func (s *sampler) sample(ctx context.Context, timeout time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	f, err := s.t.Figures(ctx)
	if err != nil {
		return sample{}, err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := sample{
		Time: now, Database: f.Database, Server: f.ServerVersion, Rows: f.LiveRows, DeadRows: f.DeadRows,
		TableBytes: f.EntriesBytes, TotalBytes: f.EntriesTotal, LogBytes: f.LogBytes, NoticesBytes: f.NoticesBytes,
		Pending: f.Pending, Queue: f.QueueUsage, Updated: f.Updated, Everything: s.count.everything, HotKeys: []hotKey{},
	}
	if f.Updated > 0 {
		out.Hot = float64(f.HotUpdated) / float64(f.Updated)
	}
	if s.lost != nil {
		out.Listener = shown(s.lost).Error()
	}
	if took := now.Sub(s.begun).Seconds(); !s.begun.IsZero() && took > 0 {
		rate := func(n int64) float64 { return max(0, float64(n)) / took } // statistics can be reset
		out.Reads, out.Inserts, out.Updates = rate(f.IndexScans-s.last.IndexScans), rate(f.Inserted-s.last.Inserted), rate(f.Updated-s.last.Updated)
		out.Deletes = rate(f.Deleted - s.last.Deleted)
		out.Flushes, out.Published, out.Invalidations = rate(s.count.flushes), rate(s.count.writes), rate(s.count.invalidations)
		for key, n := range s.hot {
			out.HotKeys = append(out.HotKeys, hotKey{key, n * (1 - fade)})
			if n *= pow(fade, took); n < 0.05 {
				delete(s.hot, key)
			} else {
				s.hot[key] = n
			}
		}
		sort.Slice(out.HotKeys, func(i, j int) bool {
			a, b := out.HotKeys[i], out.HotKeys[j]
			return a.Rate > b.Rate || a.Rate == b.Rate && a.Key < b.Key
		})
		out.HotKeys = out.HotKeys[:min(len(out.HotKeys), hotShown)]
	}
	s.count, s.last, s.begun = counts{}, f, now
	return out, nil
}
