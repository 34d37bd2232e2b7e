/*
Package pgcachetest is for the tests of programs that use pgcache: a real Postgres, caches that work as in production, and
switches for what goes wrong there.

	func TestProfile(t *testing.T) {
		t.Parallel()
		app := NewApp(pgcachetest.DB(t)) // an empty schema of this test's; app makes its cache and migrates it
		...
	}

The server is the one that PGCACHE_DSN names, else one that is started for the test binary, see DSN. Each test has
a schema of its own, which is dropped at its end, so tests run in parallel.

What a test needs a cache for:

	New(t, o)            a cache that is migrated and ready
	Nodes(t, n, o)       n processes of a service: each has a cache, a pool, a listener, and the switches of the two
	DB(t), DSN(t)        for a program that makes its cache itself
	DBWithFaults(t)      the same with a switch
	pgcache.Null()       no database at all: every Get misses, every GetOrSet loads

Instead of sleeping:

	Sync(t, c)           c answers with nothing older than what is committed by now, whoever wrote it
	Expire(t, c, keys)   entries expire now; time is the database's, so it is their rows that change
	c.Ready(ctx)         the listener is trusted again, after Start or Mend

What goes wrong in production:

	node.Listener.Stop() changes are not received any more: every Get asks the database. Start ends it
	node.Faults.Fail()   statements fail with an error of your choice. Mend ends this fault and the next two
	node.Faults.Stall()  statements wait until their context ends
	node.Faults.Down()   the server is gone: connections break, new ones are refused

A program that wraps its listener with NewListener, or opens its pool with DBWithFaults, has the same switches.

TestMain is needed only for tests that look for leaked goroutines: see Main. All of it works with testing, with Ginkgo (pass
GinkgoT()), and in programs that are no tests (Do, StartPostgres).
*/
package pgcachetest
