package store

import (
	"context"

	"github.com/pgcache/go/internal/dbsqlc"
)

// Shard is what a server knows of the shards that it is one of.
type Shard struct {
	Name  string // its own; "": it is in no map
	Epoch int64  // even: the map is settled; odd: keys are moving from Map to Next
	Map   string
	Next  string
}

// Shard returns what the server of db knows.
func (s *Store) Shard(ctx context.Context, db DB) (Shard, error) {
	r, err := s.with(db).GetShard(ctx)
	return Shard{Name: r.ShardName, Epoch: r.ShardEpoch, Map: r.ShardMap, Next: r.ShardNext}, err
}

// StepShard records to, if the server's epoch is at least least and at most most. done is false, and nothing is changed, if it is not, or if
// the server has another name.
func (s *Store) StepShard(ctx context.Context, to Shard, least, most int64) (done bool, err error) {
	n, err := s.q.StepShard(ctx, dbsqlc.StepShardParams{Name: to.Name, Epoch: to.Epoch, Map: to.Map, Next: to.Next, Least: least, Most: most})
	return n == 1, err
}

// ShardKeys returns at most most keys of rows with a value that come after a key, in their order.
func (s *Store) ShardKeys(ctx context.Context, after string, most int) ([]string, error) {
	return retry(ctx, lost, func() ([]string, error) {
		return s.q.ShardKeys(ctx, dbsqlc.ShardKeysParams{After: after, Most: int32(most)})
	})
}
