package main

import (
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// The usual fleets.
var (
	listening = []spec{{}, {Pool: "pq"}, {Refresh: true}, {Pool: "pgxpool"}}
	mixed     = []spec{{}, {Poll: true}, {Window: pgcache.Immediate}, {Pool: "pq"}, {Window: 200 * time.Millisecond}}
	immediate = []spec{{Window: pgcache.Immediate}, {Window: pgcache.Immediate, Pool: "pq"}, {Window: pgcache.Immediate, Refresh: true}, {Window: pgcache.Immediate}}
	polling   = []spec{{Poll: true}, {Poll: true, Pool: "pq"}, {Poll: true, Refresh: true}, {Poll: true, Pool: "pgxpool"}}
	durable   = []spec{{Durable: true}, {Durable: true, Pool: "pq"}, {Durable: true, Poll: true}, {Durable: true}}
	hidden    = []spec{{HideKeys: true}, {HideKeys: true, Poll: true}, {HideKeys: true, Window: pgcache.Immediate}, {HideKeys: true, Pool: "pq"}, {}}
	asIs      = []spec{{AsIs: true}, {AsIs: true, Pool: "pq"}, {AsIs: true, Poll: true}, {AsIs: true}}
	pooled    = []spec{{Pool: "pgxpool"}, {Pool: "pgxpool", Refresh: true}, {Pool: "pgxpool", Poll: true}, {Pool: "pgxpool", Window: pgcache.Immediate}}
	windows   = []spec{{}, {Window: time.Second}, {}, {Window: time.Second, Pool: "pq"}, {Window: 2 * time.Second}}
	linked    = []spec{{}, {Links: true}, {Links: true, Pool: "pq"}, {Pool: "pgxpool"}, {Links: true, Poll: true}}
	linkedTwo = []spec{{}, {Links: true}, {Links: true, Pool: "pq"}, {Pool: "pgxpool"}}
	processes = []spec{{}, {Child: true}, {Pool: "pq"}, {Child: true, Poll: true}}
	behind    = []spec{{Behind: true}, {Behind: true, Pool: "pq"}, {Behind: true}, {Behind: true, Window: pgcache.Immediate}}
	aging     = []spec{{ConnLives: often}, {ConnLives: often, Pool: "pq"}, {ConnLives: often, Poll: true}, {ConnLives: often}}
	impatient = []spec{{Params: idle}, {Params: idle, Pool: "pq"}, {Params: idle, Poll: true}, {Params: idle, Pool: "pgxpool"}}
	idle      = map[string]string{"idle_session_timeout": "100"}
	neighbors = []spec{
		{Prefix: "a_", Channel: "faults_shared"},
		{Prefix: "b_", Channel: "faults_shared"},
		{Prefix: "a_", Channel: "faults_shared", Pool: "pq"},
		{Prefix: "b_", Channel: "faults_shared", Pool: "pgxpool"},
	}
)

// often is a pause between two faults that shows many of them in a few seconds.
const often = 150 * time.Millisecond

// scenarios are the rows of the report.
var scenarios = []scenario{
	{name: "no fault", specs: mixed},
	{name: "windows of 25 ms, 1 s and 2 s in one fleet", specs: windows},
	{name: "windows of 25 ms, 1 s and 2 s, all sessions killed", specs: windows, inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "two caches on one channel, listeners killed", specs: neighbors, inject: terminate(listeners), pause: often},

	{name: "listeners killed", inject: terminate(listeners), pause: often},
	{name: "listeners killed, Immediate", specs: immediate, inject: terminate(listeners), pause: often},
	{name: "all sessions killed", inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "all sessions killed, mixed transports", specs: mixed, inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "all sessions killed, pollers only", specs: polling, inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "all sessions killed, pools as sql.Open makes them", specs: asIs, inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "all sessions killed, pgxpool", specs: pooled, inject: terminate("true"), pause: time.Second, fails: writes},

	{name: "sessions ended by the server when idle for 100 ms", specs: impatient},

	{name: "a session stopped (SIGSTOP)", inject: stopBackend("true"), hold: 2 * time.Second, pause: often, fails: allButGetOrSet},
	{name: "a listener's session stopped (SIGSTOP)", inject: stopBackend(listeners), hold: 4 * time.Second, pause: often},
	{name: "all sessions stopped (SIGSTOP)", specs: mixed, inject: stopAll, hold: 2 * time.Second, pause: time.Second, fails: allButGetOrSet},
	{name: "a crash (a backend killed): UNLOGGED tables empty", inject: crash, pause: 2 * time.Second, fails: allButGetOrSet},
	{name: "a crash, mixed transports", specs: mixed, inject: crash, pause: 2 * time.Second, fails: allButGetOrSet},
	{name: "a crash, Durable", specs: durable, inject: crash, pause: 2 * time.Second, fails: allButGetOrSet},
	{name: "the server restarted", specs: mixed, inject: restart, pause: 2 * time.Second, fails: allButGetOrSet},
	{name: "a failover that leaves the old server alive", specs: behind, inject: failover(0, false), pause: time.Second, least: 12 * time.Second, fails: allButGetOrSet, bound: afterFailover},
	{name: "a failover that leaves the old server alive, nodes that have only hits", specs: behind, quiet: true, inject: failover(0, false), pause: often, least: 15 * time.Second, fails: allButGetOrSet, bound: afterFailover},
	{name: "a failover right after a look at the pool, nodes that have only hits", specs: behind, quiet: true, inject: failover(0, true), pause: often, least: 26 * time.Second, fails: allButGetOrSet, bound: afterFailover},
	{name: "a failover to a server that is slow at first, nodes that have only hits", specs: behind, quiet: true, inject: failover(400*time.Millisecond, false), hold: 20 * time.Second, pause: often, least: 16 * time.Second, fails: allButGetOrSet, bound: afterFailover},

	{name: "a node stopped (SIGSTOP of its process)", specs: processes, inject: stopNode, hold: 3 * time.Second, pause: time.Second, fails: victims},
	{name: "a node killed and another started in its place", specs: processes, inject: killNode, hold: time.Second, pause: time.Second / 2, fails: victims},
	{name: "a node killed whose write waits for a row and is done later", specs: processes, inject: killWaiting, hold: time.Second, pause: time.Second / 2, fails: victims},
	{name: "all links of a node frozen", specs: linked, inject: onLinks(bothLinks, (*testdb.Proxy).Freeze), hold: 4 * time.Second, pause: time.Second, fails: victims},
	{name: "a Clear by a node whose links freeze meanwhile", specs: linked, inject: clearFrozen, hold: 3 * time.Second, pause: time.Second / 2, fails: victims},
	{name: "a listener's link frozen", specs: linkedTwo, inject: onLinks(listenLink, (*testdb.Proxy).Freeze), hold: 4 * time.Second, pause: time.Second},
	{name: "a listener's link frozen towards the node", specs: linkedTwo, inject: onLinks(listenLink, freezeHalf(testdb.ToClient)), hold: 4 * time.Second, pause: time.Second},
	{name: "a listener's link frozen towards the server", specs: linkedTwo, inject: onLinks(listenLink, freezeHalf(testdb.ToServer)), hold: 4 * time.Second, pause: time.Second},
	{name: "a pool's links frozen towards the node", specs: linked, inject: onLinks(poolLink, freezeHalf(testdb.ToClient)), hold: 4 * time.Second, pause: time.Second, fails: victims},
	{name: "a pool's links frozen towards the server", specs: linked, inject: onLinks(poolLink, freezeHalf(testdb.ToServer)), hold: 4 * time.Second, pause: time.Second, fails: victims},
	{name: "links cut", specs: linked, inject: onLinks(eitherLink, (*testdb.Proxy).Cut), hold: often, pause: often, fails: victims},
	{name: "links delayed by 200 ms", specs: linked, inject: onLinks(eitherLink, delayed(200*time.Millisecond)), hold: 2 * time.Second, pause: often},

	{name: "the server read-only on and off", specs: mixed, inject: system("default_transaction_read_only", "on"), hold: time.Second, pause: time.Second, fails: writes},
	{
		name: "the queue of notifications full", specs: mixed, inject: fillQueue, hold: 2 * time.Second, pause: time.Second, fails: writes,
		settings: map[string]string{"max_notify_queue_pages": "64"},
		version:  17, why: "before, the queue holds 8 GB whatever one sets",
	},
	{
		name: "the disk full", specs: mixed, inject: fillDisk, hold: 2 * time.Second, pause: time.Second, fails: allButGetOrSet, disk: true,
	},
	{
		name: "the server's connections used up", specs: listening, inject: takeConnections, hold: 2 * time.Second, pause: time.Second, fails: allButGetOrSet,
		settings: map[string]string{"max_connections": "50"},
	},
	{name: "a pool used up by others", inject: takePool, hold: time.Second, pause: often},

	{name: "LOCK TABLE cache_notices IN SHARE MODE", specs: mixed, inject: lockTable("notices", "SHARE"), hold: 3 * time.Second, pause: often},
	{name: "rows of cache_changes locked", specs: mixed, inject: lockChanges, hold: 3 * time.Second, pause: often},
	{name: "an entry's row locked", specs: mixed, inject: lockRow, hold: time.Second, pause: often},
	{name: "ACCESS EXCLUSIVE on cache_entries", specs: mixed, inject: lockTable("entries", "ACCESS EXCLUSIVE"), hold: time.Second / 2, pause: time.Second / 2},
	{name: "ACCESS EXCLUSIVE on entries, log and state", specs: mixed, inject: lockAll, hold: time.Second / 2, pause: time.Second / 2},
	{name: "a dump at work, Clear", specs: mixed, inject: dumping, hold: time.Second, pause: time.Second},
	{name: "VACUUM FULL, REINDEX", specs: mixed, inject: rewrite("VACUUM FULL %[1]s"), pause: time.Second},

	{name: "rows changed by hand: UPDATE, DELETE, INSERT, upsert", specs: mixed, hand: byHand("")},
	{name: "rows changed by hand, session_replication_role = replica", specs: mixed, hand: byHand("SET LOCAL session_replication_role = replica")},
	{name: "rows changed by hand, all sessions killed", hand: byHand(""), inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "keys hidden, rows changed by hand, all sessions killed", specs: hidden, hand: byHand(""), inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "keys shown, and hidden with other secrets, in turns", specs: mixed, inject: secret, pause: time.Second},
	{name: "TRUNCATE by hand", specs: mixed, inject: emptyBy(truncate), pause: often},
	{name: "DELETE of all by hand", specs: mixed, inject: emptyBy(deleteAll), pause: often},
	{name: "the tables dropped and made anew", specs: mixed, inject: emptyBy(anew), pause: time.Second, fails: all},
	{name: "Clear", specs: mixed, inject: emptyBy(clearAll), pause: often},

	{name: "default isolation repeatable read, sessions killed", specs: atLevel("repeatable read"), inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "default isolation serializable, sessions killed", specs: atLevel("serializable"), inject: terminate("true"), pause: time.Second, fails: writes},
	{name: "default isolation changed while running, Clear", specs: aging, inject: both(isolation, emptyBy(clearAll)), pause: often},
}

func delayed(d time.Duration) func(p *testdb.Proxy) { return func(p *testdb.Proxy) { p.Delay(d) } }
