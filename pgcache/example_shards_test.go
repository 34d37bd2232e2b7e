package pgcache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// withShards runs f with one cache over two servers.
func withShards(f func(ctx context.Context, s *pgcache.Shards) error) {
	err := pgcachetest.Do(func(t pgcachetest.TB) {
		var shards []pgcache.Shard
		for _, name := range []string{"a", "b"} {
			db := pgcachetest.DB(t)
			c, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
			if err != nil {
				t.Fatalf("%v", err)
			}
			shards = append(shards, pgcache.Shard{Name: name, Cache: c})
		}
		s, err := pgcache.NewShards(shards...)
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer s.Close() //nolint:errcheck // an example
		ctx := context.Background()
		if err := s.Migrate(ctx); err != nil {
			t.Fatalf("%v", err)
		}
		if err := f(ctx, s); err != nil {
			t.Fatalf("%v", err)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
}

func withTypedShards(f func(ctx context.Context, ages *pgcache.TypedShards[int]) error) {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		return f(ctx, pgcache.ForShards[int](s, pgcache.Namespace("age")))
	})
}

func ExampleNewShards() {
	s, err := pgcache.NewShards(pgcache.Shard{Name: "a", Cache: pgcache.Null()}, pgcache.Shard{Name: "b", Cache: pgcache.Null()})
	fmt.Println(s.Map(), err)
	// Output: [a b] <nil>
}

func ExampleForShards() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		names := pgcache.ForShards[string](s, pgcache.Namespace("name"), pgcache.TTL(time.Minute))
		name, err := names.GetOrSet(ctx, "42", func(context.Context) (string, error) { return "Ann", nil })
		fmt.Println(name)
		return err
	})
	// Output: Ann
}

func ExampleShards_Get() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		var name string
		found, err := s.Get(ctx, "name", &name)
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleShards_Set() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		if err := s.Set(ctx, "name", "Ann"); err != nil {
			return err
		}
		var name string
		_, err := s.Get(ctx, "name", &name)
		fmt.Println(name)
		return err
	})
	// Output: Ann
}

func ExampleShards_GetOrSet() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		var name string
		err := s.GetOrSet(ctx, "name", &name, func(context.Context) (any, error) { return "Ann", nil })
		fmt.Println(name)
		return err
	})
	// Output: Ann
}

func ExampleShards_Delete() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		return s.Delete(ctx, "name", "age") // each on its own server
	})
	// Output:
}

func ExampleShards_SetIfAbsent() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		stored, err := s.SetIfAbsent(ctx, "job:42", "node 1")
		fmt.Println(stored)
		return err
	})
	// Output: true
}

func ExampleShards_Increment() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		n, err := s.Increment(ctx, "visits", 1)
		fmt.Println(n)
		return err
	})
	// Output: 1
}

func ExampleShards_Touch() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		found, err := s.Touch(ctx, "session", time.Hour)
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleShards_DeleteTags() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		return s.DeleteTags(ctx, "org:7") // on every server
	})
	// Output:
}

func ExampleShards_DeletePrefix() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error { return s.DeletePrefix(ctx, "user:") })
	// Output:
}

func ExampleShards_Clear() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error { return s.Clear(ctx) })
	// Output:
}

func ExampleShards_Cleanup() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		removed, err := s.Cleanup(ctx)
		fmt.Println(removed)
		return err
	})
	// Output: 0
}

func ExampleShards_Keys() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		for _, key := range []string{"c", "a", "b"} {
			if err := s.Set(ctx, key, 1); err != nil {
				return err
			}
		}
		for key, err := range s.Keys(ctx, "") {
			if err != nil {
				return err
			}
			fmt.Println(key)
		}
		return nil
	})
	// Output:
	// a
	// b
	// c
}

func ExampleShards_Migrate() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error { return s.Migrate(ctx) })
	// Output:
}

func ExampleShards_Ready() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error { return s.Ready(ctx) })
	// Output:
}

func ExampleShards_Close() {
	withShards(func(_ context.Context, s *pgcache.Shards) error { return s.Close() })
	// Output:
}

func ExampleShards_Stats() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		err := s.Set(ctx, "name", "Ann")
		fmt.Println(s.Stats().Sets)
		return err
	})
	// Output: 1
}

func ExampleShards_Map() {
	withShards(func(_ context.Context, s *pgcache.Shards) error {
		fmt.Println(s.Map())
		return nil
	})
	// Output: [a b]
}

func ExampleShards_Owner() {
	withShards(func(_ context.Context, s *pgcache.Shards) error {
		fmt.Println(s.Owner("user:42"))
		return nil
	})
	// Output: b
}

// The server b is to be switched off: a takes its keys over, then the processes may be started without b.
func ExampleShards_Move() {
	withShards(func(ctx context.Context, s *pgcache.Shards) error {
		err := s.Move(ctx, "a")
		fmt.Println(s.Map())
		return err
	})
	// Output: [a]
}

func ExampleTypedShards_Get() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		_, found, err := ages.Get(ctx, "ann")
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleTypedShards_GetEntry() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		if err := ages.Set(ctx, "ann", 42, pgcache.Tags("people")); err != nil {
			return err
		}
		e, _, err := ages.GetEntry(ctx, "ann")
		fmt.Println(e.Value, e.Tags)
		return err
	})
	// Output: 42 [people]
}

func ExampleTypedShards_GetOrSet() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		age, err := ages.GetOrSet(ctx, "ann", func(context.Context) (int, error) { return 42, nil })
		fmt.Println(age)
		return err
	})
	// Output: 42
}

func ExampleTypedShards_Fetch() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		r, err := ages.Fetch(ctx, "ann", func(context.Context, *pgcache.Load[int]) (int, error) { return 42, nil })
		fmt.Println(r.Value, r.Source)
		return err
	})
	// Output: 42 loader
}

func ExampleTypedShards_Set() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error { return ages.Set(ctx, "ann", 42) })
	// Output:
}

func ExampleTypedShards_SetMany() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		return ages.SetMany(ctx, map[string]int{"ann": 42, "bob": 43}) // a statement a server, side by side
	})
	// Output:
}

func ExampleTypedShards_GetMany() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		if err := ages.SetMany(ctx, map[string]int{"ann": 42, "bob": 43}); err != nil {
			return err
		}
		all, err := ages.GetMany(ctx, []string{"ann", "bob", "eve"})
		fmt.Println(all)
		return err
	})
	// Output: map[ann:42 bob:43]
}

func ExampleTypedShards_GetOrSetMany() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		all, err := ages.GetOrSetMany(ctx, []string{"ann", "bob"}, func(_ context.Context, missing []string) (map[string]int, error) {
			found := map[string]int{}
			for _, name := range missing {
				found[name] = 42
			}
			return found, nil
		})
		fmt.Println(all)
		return err
	})
	// Output: map[ann:42 bob:42]
}

func ExampleTypedShards_Delete() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error { return ages.Delete(ctx, "ann", "bob") })
	// Output:
}

func ExampleTypedShards_SetIfAbsent() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		stored, err := ages.SetIfAbsent(ctx, "ann", 42)
		fmt.Println(stored)
		return err
	})
	// Output: true
}

func ExampleTypedShards_Update() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		age, err := ages.Update(ctx, "ann", func(old int, found bool) (int, error) { return old + 1, nil })
		fmt.Println(age)
		return err
	})
	// Output: 1
}

func ExampleTypedShards_Touch() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		found, err := ages.Touch(ctx, "ann", time.Hour)
		fmt.Println(found)
		return err
	})
	// Output: false
}

func ExampleTypedShards_Clear() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error { return ages.Clear(ctx) })
	// Output:
}

func ExampleTypedShards_Entries() {
	withTypedShards(func(ctx context.Context, ages *pgcache.TypedShards[int]) error {
		if err := ages.SetMany(ctx, map[string]int{"ann": 42, "bob": 43}); err != nil {
			return err
		}
		for e, err := range ages.Entries(ctx) {
			if err != nil {
				return err
			}
			fmt.Println(e.Key, e.Value)
		}
		return nil
	})
	// Output:
	// ann 42
	// bob 43
}
