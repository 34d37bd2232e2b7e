package scs_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/pgcache/go/adapters/internal/upstream"
	pgscs "github.com/pgcache/go/adapters/scs"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// newManager is what the tests of scs get instead of their New: a manager whose sessions are in Postgres.
func newManager(t *testing.T) *scs.SessionManager {
	m := scs.New()
	m.Store = pgscs.New(pgcachetest.New(t, pgcache.Options{}))
	return m
}

var _ = newManager // used by the tests of scs

// The tests of scs.SessionManager: logins, lifetimes, idle timeouts, renewed tokens, http.Flusher and http.Hijacker.
func TestUpstream(t *testing.T) {
	t.Parallel()
	upstream.Run(t, upstream.Suite{
		Module: "github.com/alexedwards/scs/v2",
		Files:  []string{"session_test.go", "session_go120_test.go"},
		Replace: []string{
			"package scs\n", "package scs_test\n",
			":= New()", ":= newManager(t)",
		},
		Run: "^(TestEnable|TestLifetime|TestIdleTimeout|TestDestroy|TestRenewToken|TestRememberMe|TestIterate|TestFlusher|TestHijacker)$",
		Min: 9,
	})
}

// The cases of scs/postgresstore, redisstore and memstore, which all have the same.
func TestStore(t *testing.T) {
	t.Parallel()
	const token = "session_token"
	for name, f := range map[string]func(t *testing.T, s *pgscs.Store, c *pgcache.Cache){
		"Find": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", time.Minute)
			want(t, s, token, "encoded_data")
		},
		"FindMissing": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			wantNone(t, s, "missing_session_token")
		},
		"SaveNew": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", time.Minute)
			var b []byte
			row := pgcache.For[[]byte](c, pgcache.WithCodec(codec.Raw{}))
			if v, found, err := row.Get(t.Context(), "scs:"+token); err != nil || !found {
				t.Fatalf("the row: %q, %v, %v", v, found, err)
			} else if b = v; string(b) != "encoded_data" {
				t.Errorf("the row holds %q", b)
			}
		},
		"SaveUpdated": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", time.Minute)
			commit(t, s, token, "new_encoded_data", time.Minute)
			want(t, s, token, "new_encoded_data")
		},
		"Expiry": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", 300*time.Millisecond)
			want(t, s, token, "encoded_data")
			for end := time.Now().Add(time.Minute); ; {
				if _, found, err := s.Find(token); err != nil {
					t.Fatal(err)
				} else if !found {
					return
				}
				if time.Now().After(end) {
					t.Fatal("the session is still there")
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
		"Delete": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", time.Minute)
			if err := s.Delete(token); err != nil {
				t.Fatal(err)
			}
			wantNone(t, s, token)
			if err := s.Delete(token); err != nil {
				t.Errorf("a second time: %v", err)
			}
		},
		"CommitOfWhatHasExpired": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			commit(t, s, token, "encoded_data", time.Minute)
			commit(t, s, token, "encoded_data", -time.Second)
			wantNone(t, s, token)
		},
		"TamperedTokens": func(t *testing.T, s *pgscs.Store, c *pgcache.Cache) {
			for _, token := range []string{"", "\x00", "\xff\xfe", string(bytes.Repeat([]byte("x"), 1<<16)), "a:b", "'; --"} {
				wantNone(t, s, token)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := pgcachetest.New(t, pgcache.Options{})
			f(t, pgscs.New(c), c)
		})
	}
}

// A logout in one process ends the session in another.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	a, b := pgscs.New(nodes[0].Cache), pgscs.New(nodes[1].Cache)
	commit(t, a, "token", "data", time.Minute)
	want(t, b, "token", "data")
	if err := a.Delete("token"); err != nil {
		t.Fatal(err)
	}
	pgcachetest.Sync(t, nodes[1].Cache)
	wantNone(t, b, "token")
}

// An error of the database is an error, not an anonymous user.
func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	m := scs.New()
	m.Store = pgscs.New(node.Cache)
	node.Faults.Fail(nil)
	defer node.Faults.Mend()
	if _, found, err := m.Store.Find("token"); err == nil || found {
		t.Errorf("Find: %v, %v", found, err)
	}
	if err := m.Store.Commit("token", nil, time.Now().Add(time.Minute)); err == nil {
		t.Error("Commit: no error")
	}
	if err := m.Store.Delete("token"); err == nil {
		t.Error("Delete: no error")
	}
}

func commit(t *testing.T, s *pgscs.Store, token, data string, ttl time.Duration) {
	t.Helper()
	if err := s.CommitCtx(t.Context(), token, []byte(data), time.Now().Add(ttl)); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, s *pgscs.Store, token, data string) {
	t.Helper()
	if b, found, err := s.FindCtx(t.Context(), token); err != nil || !found || string(b) != data {
		t.Fatalf("FindCtx: %q, %v, %v; want %q", b, found, err, data)
	}
}

func wantNone(t *testing.T, s *pgscs.Store, token string) {
	t.Helper()
	if b, found, err := s.FindCtx(t.Context(), token); err != nil || found {
		t.Fatalf("FindCtx of %.20q: %q, %v, %v; want none", token, b, found, err)
	}
}

// All returns the sessions, and nothing else of the cache.
func TestAll(t *testing.T) {
	t.Parallel()
	c := pgcachetest.New(t, pgcache.Options{})
	s := pgscs.New(c)
	if all, err := s.All(); err != nil || all == nil || len(all) != 0 {
		t.Errorf("of none: %v, %v", all, err)
	}
	commit(t, s, "a", "1", time.Minute)
	commit(t, s, "b", "2", time.Minute)
	commit(t, s, "gone", "3", time.Minute)
	pgcachetest.Expire(t, c, "scs:gone")
	if err := c.Set(t.Context(), "other:c", "4"); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); err != nil || len(all) != 2 || string(all["a"]) != "1" || string(all["b"]) != "2" {
		t.Errorf("%q, %v", all, err)
	}
}

// Managers with a namespace each do not accept each other's sessions.
func TestManagers(t *testing.T) {
	t.Parallel()
	c := pgcachetest.New(t, pgcache.Options{})
	users, admins := pgscs.New(c), pgscs.New(c, pgcache.Namespace("admin"))
	commit(t, users, "token", "data", time.Minute)
	wantNone(t, admins, "token")
	if all, err := admins.All(); err != nil || len(all) != 0 {
		t.Errorf("%q, %v", all, err)
	}
	if err := admins.Delete("token"); err != nil {
		t.Error(err)
	}
	want(t, users, "token", "data")
}
