package pgcache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
)

// Severity says how bad a Finding is.
type Severity int

// A Note is worth knowing, a Warning makes the cache or the database slower than need be, a Fault keeps the cache from doing
// what it promises.
const (
	Note Severity = iota
	Warning
	Fault
)

// String is note, warning or fault.
func (s Severity) String() string {
	return [...]string{"note", "warning", "fault"}[min(max(s, Note), Fault)]
}

// A Finding is what Doctor has found. docs/operating.md lists them all.
type Finding struct {
	ID       string // a short name that stays the same: "hot-updates"
	Severity Severity
	What     string // what is, with figures
	Remedy   string // what to do about it
}

// What Doctor reports: more than this, or less of doctorHot.
const (
	doctorQueue   = 0.1         // of the notification queue is full
	doctorLocks   = 0.5         // of the lock table is full
	doctorOld     = time.Minute // since a transaction began that keeps dead rows
	doctorHot     = 0.5         // of the updates were HOT, if there were at least doctorUpdates
	doctorUpdates = 1000
	doctorDead    = 10000                 // dead rows, if they are more than the live ones
	doctorClock   = 5 * time.Second       // between the clocks
	doctorWait    = 10 * time.Millisecond // on average for a connection of the pool, if there were more than doctorWaits waits
	doctorWaits   = 100

	// The first version that is tested, and the first that is not any more.
	testedFrom, testedUntil = 140000, 190000
)

// Doctor looks at the database and at this node for what keeps the cache from working well, and says what to do about it. It
// changes nothing and takes a few small statements, each of which an ordinary application role may send: what the role may not
// see is a Note. An error says that the database could not be asked at all.
func (c *Cache) Doctor(ctx context.Context) ([]Finding, error) {
	const op = "doctor"
	if c.null || c.ctx.Err() != nil {
		return nil, c.closedErr(op)
	}
	d := &doctor{c: c}
	asked := time.Now()
	server, err := bounded(ctx, c, c.store.ServerHealth)
	if err != nil {
		return nil, fail(op, "", c.explain(ctx, err))
	}
	d.server(server, asked, time.Since(asked))
	schema := d.schema(ctx)
	d.node(schema)
	if schema != nil {
		return d.found, nil //nolint:nilerr // it is among the findings
	}
	for _, look := range []struct {
		at string
		f  func(ctx context.Context) error
	}{
		{"the tables' statistics", d.tables},
		{"the guards", d.guards},
		{"subscriptions", d.subscribed},
		{"prepared transactions", d.recovered},
		{"old transactions", func(ctx context.Context) error { return d.snapshots(ctx, doctorOld) }},
		{"the watched tables", d.watches},
		{"poolers", d.pooler},
	} {
		looking, cancel := c.statement(ctx)
		err := look.f(looking)
		cancel()
		if err != nil {
			d.find("unseen", Note, fmt.Sprintf("could not look at %s: %v", look.at, c.explain(ctx, err)), "call Doctor as a role that may, or again")
		}
	}
	return d.found, nil
}

// doctor is one call of Doctor.
type doctor struct {
	c     *Cache
	found []Finding
}

// find reports a Finding.
func (d *doctor) find(id string, s Severity, what, remedy string) {
	d.found = append(d.found, Finding{id, s, what, remedy})
}

// server looks at what the server has answered. It was asked at asked, by this machine's clock, and that took so long.
func (d *doctor) server(s store.ServerHealth, asked time.Time, took time.Duration) {
	if s.Version < testedFrom || s.Version >= testedUntil {
		d.find("version", Warning, fmt.Sprintf("the server is PostgreSQL %d", s.Version/10000), "use PostgreSQL 14 to 18: only these are tested")
	}
	if s.InRecovery {
		d.find("standby", Fault, "the pool leads to a standby", "lead it to the primary: a standby takes no writes, knows no LISTEN and has no UNLOGGED rows")
	} else if s.ReadOnly {
		d.find("read-only", Fault, "sessions of the pool are read-only", "set default_transaction_read_only to off for this role")
	}
	if !s.TrackCounts {
		d.find("track-counts", Warning, "track_counts is off: autovacuum does not run, and much of this can't be seen", "set track_counts to on")
	}
	if !s.Autovacuum {
		d.find("autovacuum", Warning, "autovacuum is off", "set autovacuum to on: every change of an entry leaves a dead row")
	}
	if s.Queue > doctorQueue {
		d.find("queue", Fault, fmt.Sprintf("the queue of notifications is %.0f%% full: when it is full every COMMIT that notifies fails", 100*s.Queue),
			"find the session that listens and stays in a transaction (the server's log names it), and end it")
	}
	if s.LockRoom > 0 && float64(s.Locks) > doctorLocks*float64(s.LockRoom) {
		d.find("locks", Warning, fmt.Sprintf("%d locks are held, there is room for about %d", s.Locks, s.LockRoom), "raise max_locks_per_transaction")
	}
	// The wait for a connection is part of what it took: nobody knows when within it the clock was read.
	if off := time.UnixMicro(s.NowUs).Sub(asked.Add(took / 2)).Round(time.Millisecond); off.Abs() > doctorClock+took/2 {
		d.find("clock", Note, fmt.Sprintf("the database's clock is %v off this machine's", off),
			"let both keep time by NTP: entries expire by the database's clock, and a step of it expires them early or late")
	}
}

// node looks at this node's listener, pulse and pool. It sends nothing. schema is what schema has returned: without tables, or with
// another encoding, no listener becomes live, which is no finding of its own.
func (d *doctor) node(schema error) {
	c := d.c
	err, permanent := c.listening.err()
	follows := errors.Is(schema, ErrNotMigrated) && (err == nil || errors.Is(err, ErrNotMigrated)) ||
		errors.Is(schema, errEncoding) && (err == nil || errors.Is(err, errEncoding))
	if c.opts.Listener == nil {
		what := "there is no Listener: nothing is kept in memory"
		if c.opts.LocalTTL > 0 {
			what = "there is no Listener: memory is as stale as LocalTTL"
		}
		d.find("no-listener", Note, what, "set Options.Listener")
	} else if err != nil && !follows {
		what := "the listener is not live, or the pulse fails: every Get asks the database: "
		if permanent {
			what = "the listener can never work: "
		}
		d.find("listener", Fault, what+err.Error(), "look at what it says; behind a transaction pooler connect the listener past it, or use listener.Poll")
	} else if !follows && !c.local.Live() && !c.onlyIdle() {
		d.find("listener", Fault, "the listener is not live yet: every Get asks the database", "wait for Ready")
	}
	s := c.db.Stats()
	if s.MaxOpenConnections > 0 && s.WaitCount > doctorWaits && s.WaitDuration/time.Duration(s.WaitCount) > doctorWait {
		d.find("pool", Warning, fmt.Sprintf("callers have waited %d times for one of %d connections, %v on average",
			s.WaitCount, s.MaxOpenConnections, (s.WaitDuration/time.Duration(s.WaitCount)).Round(time.Millisecond)), "raise MaxOpenConns, or hold connections for less long")
	}
	if n := c.stats.unpublished.Load(); n > 0 {
		d.find("unpublished", Warning, fmt.Sprintf("%d pulses found changes that could not be published", n), "look into the log for why")
	}
}

// schema looks whether the tables are there, fit this release and the options, and may be used. nil says that it is of use to
// look at them further.
func (d *doctor) schema(ctx context.Context) error {
	c := d.c
	state := c.check(ctx)
	err := c.prove(ctx, state)
	var rights *RightsError
	var persistence *migrate.PersistenceError
	switch {
	case errors.As(err, &rights):
		for _, r := range rights.Lacks {
			d.find("rights", Fault, fmt.Sprintf("role %q lacks %s", rights.Role, r), "grant it, see docs/rights.md")
		}
		return nil
	case errors.Is(err, errEncoding):
		d.find("encoding", Fault, err.Error(), "set client_encoding to UTF8 in the DSN, or for the role")
		return err
	case errors.As(err, &persistence):
		d.find("persistence", Fault, persistence.Error(), "change the table, or the option Durable")
		err = state
	}
	if err != nil {
		d.find("schema", Fault, err.Error(), "run Migrate, with the options that this node has")
	}
	return err
}

func (d *doctor) tables(ctx context.Context) error {
	tables, err := d.c.store.TableHealth(ctx)
	for _, t := range tables {
		if t.NoAutovacuum {
			d.find("autovacuum", Warning, "autovacuum is off for "+t.Name, "ALTER TABLE "+t.Name+" RESET (autovacuum_enabled)")
		}
		if t.Updates >= doctorUpdates && float64(t.HotUpdates) < doctorHot*float64(t.Updates) {
			d.find("hot-updates", Warning, fmt.Sprintf("%d of %d updates of %s were HOT: the others write all indexes", t.HotUpdates, t.Updates, t.Name),
				"drop indexes that were added to it, keep its fillfactor, and end old transactions")
		}
		if t.Dead > doctorDead && t.Dead > t.Live {
			d.find("dead-rows", Warning, fmt.Sprintf("%s has %d dead rows beside %d live ones", t.Name, t.Dead, t.Live), "VACUUM "+t.Name+"; see also old-transaction and autovacuum")
		}
	}
	return err
}

func (d *doctor) guards(ctx context.Context) error {
	faults, err := d.c.store.GuardFaults(ctx)
	var gone, disabled []string
	for _, f := range faults {
		if f.Gone {
			gone = append(gone, f.Name)
		} else {
			disabled = append(disabled, f.Name)
		}
	}
	table := d.c.store.Names.Table()
	if gone != nil {
		d.find("guards", Fault, fmt.Sprintf("triggers of %s are gone: %s: what others change is not published", table, strings.Join(gone, ", ")), "run Migrate, which makes them again")
	}
	if disabled != nil {
		d.find("guards", Fault, fmt.Sprintf("triggers of %s do not fire in every session: %s: what others change is not published", table, strings.Join(disabled, ", ")),
			"ALTER TABLE "+table+" ENABLE ALWAYS TRIGGER of each")
	}
	return err
}

func (d *doctor) subscribed(ctx context.Context) error {
	tables, err := d.c.store.Subscribed(ctx)
	if len(tables) > 0 {
		d.find("replicated", Fault, "a subscription fills the cache's own tables: "+strings.Join(tables, ", ")+": what it brings is of another cache",
			"leave tables whose names begin with cache_ (after the Prefix) out of the publication")
	}
	return err
}

func (d *doctor) recovered(ctx context.Context) error {
	gids, err := d.c.store.Recovered(ctx)
	if len(gids) > 0 {
		d.find("prepared", Fault, fmt.Sprintf("transactions that were prepared before a crash are not ended: %q. Until they are, nothing that is loaded is stored, "+
			"and memory is forgotten every few seconds", gids), "COMMIT PREPARED or ROLLBACK PREPARED each, see pg_prepared_xacts")
	}
	return err
}

func (d *doctor) snapshots(ctx context.Context, longer time.Duration) error {
	olds, err := d.c.store.OldSnapshots(ctx, longer)
	for _, o := range olds {
		age := (time.Duration(o.Seconds) * time.Second).String()
		switch {
		case o.Hidden > 0:
			d.find("unseen", Note, fmt.Sprintf("%d sessions of other roles can't be seen", o.Hidden), "GRANT pg_read_all_stats to this role, or call Doctor as another")
		case o.Idle:
			d.find("old-transaction", Warning, o.What+" does nothing in a transaction since "+age+" or less: no dead row can be removed", "end it; set idle_in_transaction_session_timeout")
		default:
			d.find("old-transaction", Warning, o.What+" is in a transaction since "+age+": no dead row can be removed", "run reports elsewhere, or in parts")
		}
	}
	return err
}

func (d *doctor) watches(ctx context.Context) error {
	watches, err := d.c.store.WatchFaults(ctx)
	for _, w := range watches {
		if w.Faults != "" {
			d.find("watch", Fault, "the watch of "+w.Watched+": "+w.Faults, "call WatchTable again, or UnwatchTable")
		}
		if w.Replicated {
			d.find("watch-replicated", Note, w.Watched+" is filled by a subscription: its changes are removed row by row", "nothing, if it keeps up")
		}
	}
	return err
}

func (d *doctor) pooler(ctx context.Context) error {
	pooled, err := d.c.store.Pooled(ctx)
	if pooled {
		d.find("pooler", Note, "a pooler is between: statements of one connection go to several sessions",
			"fine for the data; the listener and advisory locks need sessions: connect the listener past it, or use listener.Poll, and set Options.Guard to Lease()")
	}
	return err
}
