package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/shardmap"
	"github.com/pgcache/go/localcache"
)

// A Shard is one of the servers that Shards spreads keys over.
type Shard struct {
	// Name is the shard's for good: keys are spread by the names, and the server has it recorded. Letters, digits, '_', '-' and '.', at
	// most 63. A server that takes another's place, empty or by a failover, gets its name.
	Name string
	// Cache is an ordinary Cache on that server. From NewShards on it is used through the Shards alone.
	Cache *Cache
}

// Shards is one logical cache over several Postgres servers, for when one of them is full. Each key lives on one server, and
// whatever a Cache promises for a key (P1 to P7) holds for it as it stands, also while keys move to another server. Each server has its own
// table, listener, pulse and connections; nothing is shared, so a server that is down fails its keys alone: GetOrSet loads
// them.
//
// Which server has a key is decided by a map: the names of the shards. Each server has it recorded, Migrate does that, and every node
// follows what is recorded. A node that was not given a shard of the map is refused, with a ShardMapError. A shard that a node
// was given and that is not in the map has no keys: Move brings it in while the fleet runs.
//
// What is given up:
//
//   - one moment for several keys: GetMany, Keys, Entries and GetOrSetMany read each server by itself;
//   - all or none for several keys: SetMany, Delete, DeleteTags, DeletePrefix and Clear may have been done on some servers where
//     they return an error, and are seen on one before the other;
//   - transactions: WithTx and WatchTable work where the data and the key are on one server. They are not offered here.
//
// While a Move is under way, for some seconds, the keys that move are held nowhere: Get finds nothing, GetOrSet loads and does not
// store, Set and Delete leave nothing and are seen by all, and what depends on the present value (SetIfAbsent, Increment,
// Update, Touch) returns ErrMoving. Then they begin anew on their new server: counters too.
type Shards struct {
	shards  []*shard
	null    *Cache // what asks nobody and stores nothing: for keys that are held nowhere for now
	allNull bool   // the Caches of all shards are Null: there is no map to read

	mu     sync.Mutex // of install, which replaces routes
	routes atomic.Pointer[routes]
}

// ErrMoving is returned by what depends on the present value of a key, while the key moves to another server, and where it has moved
// during the call: then the outcome is unknown. It takes some seconds; try again.
var ErrMoving = errors.New("the key is moving to another shard")

// ShardMapError says that a server has another map of shards recorded than this node can follow, or is another shard.
type ShardMapError struct {
	Shard    string // the one whose server it was read from
	Recorded string // the map there; "": none
	Given    string // the map of all shards that NewShards was given
	Reason   string
}

// Error has both maps.
func (e *ShardMapError) Error() string {
	recorded := e.Recorded
	if recorded == "" {
		recorded = "none"
	}
	return fmt.Sprintf("%s: the map recorded on shard %q is %s, this node was given %s", e.Reason, e.Shard, recorded, e.Given)
}

// routes says which shard has which key, at one epoch of the map. It does not change.
type routes struct {
	epoch        int64
	text, toText string          // the map, and the one that keys are moving to, as they are recorded; toText is empty unless keys are moving
	now, next    *shardmap.Table // the same two maps; next is nil unless keys are moving
	members      []int           // the shards of both maps, as indexes of Shards.shards
	names        []string        // of the map in force
	err          error           // which shards of the two maps this node lacks; nil: none
}

// place is where a key is: from and to differ while it is moving. A shard that this node lacks is shardmap.None.
type place struct{ from, to uint8 }

// of returns the place of the key with this hash.
func (r *routes) of(hash uint64) place {
	from := r.now.Of(hash)
	if r.next == nil {
		return place{from, from}
	}
	return place{from, r.next.Of(hash)}
}

// settled returns the shard of a key that does not move and whose shard this node has.
func (r *routes) settled(hash uint64) (i int, ok bool) {
	p := r.of(hash)
	return int(p.from), p.from == p.to && p.from != shardmap.None
}

// NewShards makes one cache of several. Like New it touches no network. The order of the shards does not matter. Close closes the
// Caches.
func NewShards(shards ...Shard) (*Shards, error) {
	names := make([]string, len(shards))
	for i, sh := range shards {
		names[i] = sh.Name
	}
	if err := shardmap.Check(names); err != nil {
		return nil, fmt.Errorf("pgcache: shards: %w", err)
	}
	s := &Shards{null: Null()}
	for i, sh := range shards {
		switch {
		case sh.Cache == nil:
			return nil, fmt.Errorf("pgcache: shards: the Cache of %q is nil", sh.Name)
		case sh.Cache.null != shards[0].Cache.null:
			return nil, fmt.Errorf("pgcache: shards: %q and %q: either all are Null or none", shards[0].Name, sh.Name)
		case slices.ContainsFunc(shards[:i], func(o Shard) bool { return o.Cache == sh.Cache }):
			return nil, fmt.Errorf("pgcache: shards: the Cache of %q has two names", sh.Name)
		}
		s.shards = append(s.shards, &shard{name: sh.Name, c: sh.Cache, turn: make(chan struct{}, 1)})
	}
	s.null.opts.Codec, s.null.opts.MaxValueBytes, s.null.opts.LoadTimeout = shards[0].Cache.opts.Codec, shards[0].Cache.opts.MaxValueBytes, shards[0].Cache.opts.LoadTimeout
	s.null.base = newView(s.null)
	if s.allNull = s.shards[0].c.null; s.allNull {
		s.install(&routes{now: s.table(names), members: s.indexes(names), names: slices.Sorted(slices.Values(names))})
		return s, nil
	}
	for _, sh := range s.shards {
		s.follow(sh)
	}
	return s, nil
}

// table builds the map of names. Its shards are indexes of s.shards.
func (s *Shards) table(names []string) *shardmap.Table {
	return shardmap.Build(names, func(name string) uint8 {
		if i := s.index(name); i >= 0 {
			return uint8(i)
		}
		return shardmap.None
	})
}

func (s *Shards) index(name string) int {
	return slices.IndexFunc(s.shards, func(sh *shard) bool { return sh.name == name })
}

// indexes are the indexes in s.shards of those names that this node has.
func (s *Shards) indexes(names []string) (list []int) {
	for i, sh := range s.shards {
		if slices.Contains(names, sh.name) {
			list = append(list, i)
		}
	}
	return list
}

// given is the map of all shards that NewShards was given, as a map is recorded.
func (s *Shards) given() string {
	names := make([]string, len(s.shards))
	for i, sh := range s.shards {
		names[i] = sh.name
	}
	return shardmap.Text(names)
}

// hashOf is the hash of a row's key.
func hashOf(k localcache.Key) uint64 {
	if k.Namespace == "" {
		return shardmap.Hash(0, k.Name)
	}
	return shardmap.Hash(shardmap.Hash(0, k.Namespace), k.Name)
}

// Owner returns the name of the shard that has key, with its namespace, by what this node knows: "" before it has seen a map, and while
// the key is moving.
func (s *Shards) Owner(key string) string {
	r := s.routes.Load()
	if r == nil {
		return ""
	}
	i, ok := r.settled(hashOf(keyOf(key)))
	if !ok {
		return ""
	}
	return s.shards[i].name
}

// Map returns the names of the shards that are in the map, by what this node knows, in their order.
func (s *Shards) Map() []string {
	r := s.routes.Load()
	if r == nil {
		return nil
	}
	return slices.Clone(r.names)
}

// each calls f for the shards in list, concurrently, and joins the errors.
func (s *Shards) each(list []int, f func(i int) error) error {
	if len(list) == 1 {
		return f(list[0])
	}
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for at, i := range list {
		wg.Go(func() {
			defer panics.Recover(&errs[at])
			errs[at] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Shards) all() []int {
	list := make([]int, len(s.shards))
	for i := range list {
		list[i] = i
	}
	return list
}

// named adds the name of shard i to err.
func (s *Shards) named(i int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("shard %q: %w", s.shards[i].name, err)
}

// Ready waits until each shard is Ready and its map was seen, like [Cache.Ready]. It returns a ShardMapError at once.
func (s *Shards) Ready(ctx context.Context) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	return s.each(s.all(), func(i int) error {
		err := s.ready(waiting, i)
		switch {
		case err == nil:
		case isPermanent(err):
			cancel() // no use in waiting for the others
		case ctx.Err() == nil && errors.Is(err, context.Canceled):
			return nil // it was not waited for any longer: the error of another shard says why
		}
		return s.named(i, err)
	})
}

func (s *Shards) ready(ctx context.Context, i int) error {
	for sh := s.shards[i]; !s.allNull; { // before the Cache's own Ready: until the map was read, its memory is not served
		err := ErrClosed
		if sh.c.ctx.Err() == nil {
			err = s.ask(ctx, sh) // what calls remember of a look that failed may be from before Migrate
		}
		if err == nil {
			sh.failed.Store(nil)
		}
		if r := s.routes.Load(); err == nil && r.err == nil {
			break
		} else if err == nil {
			err = r.err
		}
		if isPermanent(err) {
			return fail("ready", "", err)
		}
		if ctx.Err() != nil {
			return fail("ready", "", errors.Join(ctx.Err(), err))
		}
		pauseFor(ctx, lookRetry, nil)
	}
	return s.shards[i].c.Ready(ctx)
}

// Close closes the Cache of each shard.
func (s *Shards) Close() error {
	return errors.Join(s.null.Close(), s.each(s.all(), func(i int) error { return s.named(i, s.shards[i].c.Close()) }))
}

// Stats returns the counts of all shards together, and the longest of their windows.
func (s *Shards) Stats() Stats {
	sum := Stats{Views: map[string]ViewStats{}}
	add := func(to *Stats, one Stats) {
		into, from := reflect.ValueOf(to).Elem(), reflect.ValueOf(one)
		for i := range into.NumField() {
			if f := into.Field(i); f.Kind() == reflect.Uint64 {
				f.SetUint(f.Uint() + from.Field(i).Uint())
			}
		}
		to.Window = max(to.Window, one.Window)
		for ns, v := range one.Views {
			into, from := reflect.ValueOf(new(ViewStats)).Elem(), reflect.ValueOf(v)
			into.Set(reflect.ValueOf(to.Views[ns]))
			for i := range into.NumField() {
				into.Field(i).SetUint(into.Field(i).Uint() + from.Field(i).Uint())
			}
			to.Views[ns] = into.Interface().(ViewStats)
		}
	}
	for _, sh := range s.shards {
		add(&sum, sh.c.Stats())
	}
	add(&sum, s.null.Stats())
	return sum
}

// Cleanup removes a batch of expired rows of each shard, like [Cache.Cleanup].
func (s *Shards) Cleanup(ctx context.Context) (removed int64, err error) {
	var n atomic.Int64
	err = s.each(s.all(), func(i int) error {
		m, err := s.shards[i].c.Cleanup(ctx)
		n.Add(m)
		return s.named(i, err)
	})
	return n.Load(), err
}

// describe is names as errors list them.
func describe(names []string) string { return strings.Join(names, ", ") }
