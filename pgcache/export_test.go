package pgcache

import (
	"context"
	"time"
)

// DoctorTransactions is what Doctor says of transactions older than longer.
func DoctorTransactions(ctx context.Context, c *Cache, longer time.Duration) ([]Finding, error) {
	d := &doctor{c: c}
	err := d.snapshots(ctx, longer)
	return d.found, err
}
