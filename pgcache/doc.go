/*
Package pgcache is a cache in the Postgres that you already run, with a local cache in every process that stays true.

Plug it into an existing *sql.DB, pick a codec, and wrap it for your types:

	c, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	...
	err = c.Migrate(ctx) // once per deployment, or with your own tool: see MigrationSQL

	users := pgcache.For[User](c, pgcache.Namespace("user"), pgcache.TTL(time.Minute))
	u, err := users.GetOrSet(ctx, "42", func(ctx context.Context) (User, error) {
		return queryUser(ctx, db, 42) // runs once in the whole fleet as a rule, however many ask
	})
	...
	err = users.Delete(ctx, "42") // when it returns, this process has forgotten; the others have within milliseconds

# Terms

  - A node is one [Cache] in one process. The fleet is all nodes on the same tables.
  - Memory is the local cache of a node, see [localcache.Cache]. To invalidate a key is to make a node forget what its memory
    holds of it.
  - The change log is a table of the changes that are not published yet. A flush, a statement of one node, publishes all of
    them, whoever made them.
  - A tombstone is the row that a Delete leaves for five minutes.
  - The incarnation is a number of the tables. Clear, TRUNCATE and a crash of the server change it.
  - A fence is the condition under which a loaded value is stored: neither the row nor the incarnation has changed since
    before the loader began.

# The data path

	Get       memory ── hit ──────────────────────────────────────────────► value
	            │ miss
	            ▼
	          one SELECT, shared by the callers that come while it runs ──► value, kept in memory
	            │ no row (GetOrSet)
	            ▼
	          one load per process, one process per fleet (advisory lock)
	            │ look again: has another process stored it meanwhile? ───► value
	            ▼
	          your loader ──► codec ──► store behind a fence ─────────────► value, kept in memory

	Set       codec ──► one statement, shared by the callers that come while one runs: ──► COMMIT ──► memory
	          the row, and a line in the change log
	Delete    the same, with a tombstone for a row

	window    within 25 ms one node's flush publishes everybody's changes in one notification; in a quiet
	          system a write publishes in its own statement, at once

	pulse     every two seconds each node that listens asks whether changes are being published; if not,
	          it publishes them itself, or forgets what it holds

	others    COMMIT ~~► their listener ──► their memory forgets the key, and reads under way are not kept

# Promises

What a Cache promises with its listener live, which means that the listener and the pulse are both trusted:

  - P1: after a node has applied an invalidation, no Get that starts later on it returns anything older.
  - P2: usually a Get returns nothing that was replaced longer ago than the InvalidationWindow (25 ms, stretched to
    MaxWindow at the most, or none with Immediate) and the notification take. Whatever goes wrong between a commit and a
    node (a node that dies, flushes that fail, a connection that falls silent, a suspended machine), it returns nothing
    that was replaced more than 4 s ago: 2 s from one pulse to the next, its timeout of 1 s, and the second that a change
    may stay in the change log. The time for which a machine is suspended does not count. The one exception is a failover
    that leaves the old server alive: a node that only has hits in memory notices within 10 s, as soon as the pool has a
    connection to spare. LocalTTL bounds that too. With listener.Poll it is usually the interval and a statement, whatever the
    window, and at most 4 s and the interval.
    And where no pulse of any node was answered for some seconds, what was written meanwhile may be served for the
    milliseconds in which its notification is under way.
  - P3: a node reads its own writes.
  - P4: a node never goes back for a key: what it has returned once is not followed by something older. A crash of the
    server loses what it loses: all of an UNLOGGED table, and with Durable what synchronous_commit = off had not written.
  - P5: while the listener is not provably live, every Get asks the database.
  - P6: a GetOrSet never stores over a Set, a Delete or a foreign change that finished after its loader began, whoever held
    the lock, and whatever crashed meanwhile.
  - P7: nothing is served after its expiry, by more than 50 ms, nor anything that was never written.
  - P8: what is written in a transaction (WithTx) is seen by others at its commit or never. The moment that Commit has
    returned, no Get on that node returns what was there before. A rollback leaves no trace in any memory.

How they are kept is described in internal/coherence, checked exhaustively on a model in internal/model, and on a running
fleet by the harness (go run ./harness).

# Loads

[Cache.GetOrSet] runs a loader at most once at a time in a process and, guarded by an advisory lock (or by a lease, see
[Lease]), in one process of the fleet. The lock only saves loads. A process holds at most half as many locks as
max_locks_per_transaction, and at most 128; beyond that, loads go without one. A call for more than 16 keys takes one lock,
on the hash of all. A second load can happen: the lock session was lost, or a loader took longer than LockTimeout.

Callers that wait for a load get what it returned, whoever passed the loader, and later ones find it stored. So all calls for
one key must pass loaders that return the same, and what a value depends on, such as the user who may see it, belongs in the key.

A value that has been overtaken is never stored, because of the fence: the loader's value is stored only if the row is still
the one that was there before the loader began, and if the incarnation is still the same. A tombstone is another row than none.

While a key is deleted again and again, a process still runs one loader of it at a time: a caller that comes after a Delete
waits for the load under way to end and shares the next.

A loader runs detached from the caller's context: it ends when its last waiter has left, or after LoadTimeout. It may use
the same pool. It must not ask the cache for its own key, nor for one whose loader asks for its own: [ErrRecursiveLoad].

# Transactions

[Cache.WithTx] puts writes into a transaction of the caller's, see [Tx]. From the statement on until the outcome of the
transaction is known, the node asks the database for these keys and keeps nothing of them in memory, so that there is no moment
after Commit in which memory could still answer. The notification of its own change, which the next flush sends, says that it
has committed; after a rollback there is none, and the node asks the database for the transaction's status, every second. Loads
are fenced by the row that the transaction leaves, which may be a tombstone: the janitor keeps it until no load can have begun
before the commit, however long the transaction was open.

# Groups

[Tags] puts an entry into groups; [Cache.DeleteTags] removes all entries of a group, [Cache.DeletePrefix] all whose keys begin
with a prefix, and [Typed.Clear] those of the view's namespace, each by one small row whatever it removes. The promises hold for
them as for Delete: P1, P3 and P4 on every node, P6 for loads, P8 in a transaction. What counts is what a statement saw: an entry
is gone if the statement that stored it had not seen the removal, whichever of the two committed first. See docs/groups.md.

# When things are missing

	the listener is down             every Get asks the database; back by itself, with an empty memory
	no Listener in Options           no local cache, or, with LocalTTL, one that may be that much behind
	a transaction pooler in between  the listener's echo does not come back: as if down, and the log says what to use:
	                                 a direct connection (ListenerDSN), or listener.Poll over the pool
	a node dies, its changes not yet published   the pulses of the others find and publish them, see P2
	flushes fail                     (a lock held, a full queue, a read-only server) memory is forgotten at every pulse,
	                                 so nothing in it is older than a pulse, until one gets through
	the pool is exhausted            memory goes on; what needs a connection waits for it, until Timeout
	the database is down             Get and Set return an error; GetOrSet loads and returns; all recovers by itself
	the reply to a write is lost     an error: whether it was done is unknown. It is not sent again, because that could undo
	                                 what was written since; memory holds nothing of the key
	a transaction holds a row        only the writes of that row wait for it, until Timeout; a Clear does, too
	the lock session is lost         loads go on, once per process instead of once per fleet
	a loader fails                   everybody who waits gets its error, nothing is stored, the lock is free
	the tables are missing           ErrNotMigrated, from everything
	another schema version           SchemaError, with both versions
	client_encoding is not UTF8      an error, from everything
	rights are missing               Ready returns a RightsError, which names each; see docs/rights.md
	the role may only read           Gets work, from memory too; what writes is an error of the server
	bytes that do not decode         a miss, counted and logged; GetOrSet loads anew and overwrites
	a value above MaxValueBytes      the same: another node or another service has stored it, and it is not read
	garbage on the channel           everything in memory is forgotten, and counted in Stats.UnknownMessages
	another cache on the channel     its messages are ignored
	changes by psql, other services  noticed by triggers, each with a version of its own; cache_set and cache_delete are the
	                                 functions for other services and languages
	the server crashed               an UNLOGGED table is empty, and so is every memory: no older value comes back
	a failover                       rows of a server that the listener is not connected to are not kept in memory

Errors are of type *[Error] and say operation, key and cause; use errors.Is and errors.As for the cause.

# What it is not

It is not a store of record: by default the table is UNLOGGED, and a crash of the server empties it. It does not run on a
standby: reads of UNLOGGED tables, LISTEN and writes all need the primary.
*/
package pgcache
