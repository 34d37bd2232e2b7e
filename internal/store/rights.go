package store

import (
	"context"
	"strings"

	"github.com/pgcache/go/internal/dbsqlc"
)

// Use is what a right is for.
type Use int

// ToRead is for Gets. ToListen is for Gets from memory, which needs a listener and the pulse. ToWrite is for everything: its rights
// include those of the others.
const (
	ToRead Use = iota
	ToListen
	ToWrite
)

// Right is one right on one object of a cache. docs/rights.md says which statement needs it, and a test holds the two
// against each other. Identity columns ask for no right on their sequence.
type Right struct {
	Use       Use
	Privilege string
	Object    string
	Args      string // of a function, as the catalogs write them; "-": a table or a sequence
	Columns   string // of a table; "": all
}

// Rights are all rights that the library's statements need.
func Rights() []Right {
	rights := []Right{
		{ToRead, "SELECT", "cache_entries", "-", "key, value, version, codec, expires_at, tags, seen"},
		{ToRead, "SELECT", "cache_groups", "-", "kind, name, id, xid"},
		{ToRead, "SELECT", "cache_groups_mark", "-", ""},
		{ToRead, "SELECT", "cache_state", "-", "schema_version, id, channel, key_secret"},
		{ToListen, "SELECT", "cache_state", "-", "poller_lease"},
		{ToListen, "SELECT", "cache_incarnation", "-", "id"},
		{ToListen, "SELECT", "cache_changes", "-", "logged_at"},
		{ToListen, "SELECT", "cache_watches", "-", "id"},
	}
	for _, t := range []struct{ table, privileges string }{
		{"cache_entries", "SELECT INSERT UPDATE DELETE TRUNCATE"},
		{"cache_changes", "SELECT INSERT DELETE TRUNCATE"},
		{"cache_notices", "SELECT INSERT DELETE"},
		{"cache_incarnation", "SELECT INSERT UPDATE"},
		{"cache_groups", "SELECT INSERT UPDATE DELETE"},
		{"cache_groups_mark", "SELECT UPDATE"},
		{"cache_state", "SELECT"},
		{"cache_watches", "SELECT"},
		{"cache_leases", "SELECT INSERT UPDATE DELETE"},
	} {
		for p := range strings.FieldsSeq(t.privileges) {
			rights = append(rights, Right{ToWrite, p, t.table, "-", ""})
		}
	}
	rights = append(rights, Right{ToWrite, "UPDATE", "cache_state", "-", "swept_at, ended_before, next_before, next_at, retire_before, retire_after, noted_on, poller_lease, flusher, flusher_lease"})
	for _, f := range [][2]string{
		{"cache_server", ""},
		{"cache_random", ""},
		{"cache_committed", ""},
		{"cache_item", "text, bytea, text"},
		{"cache_group_item", "text, text, bytea, bigint"},
		{"cache_head", "text, text, bytea"},
		{"cache_publish", "text, text, text[]"},
		{"cache_flush", "text, integer, integer, boolean"},
		{"cache_writers", ""},
		{"cache_recovered", ""},
		{"cache_incarnate", "boolean"},
		{"cache_changed", "text"},
		{"cache_truncate", ""},
		{"cache_clear", "timestamp with time zone, integer"},
		{"cache_clear_waiting", "timestamp with time zone"},
		{"cache_xid8", "xid"},
		{"cache_expire", "bigint, integer, timestamp with time zone, integer, boolean"},
		{"cache_look", "integer, integer, integer[], text[], integer, boolean"},
		{"cache_lease", "integer[], bigint[], bigint[], bigint[], bigint"},
		{"cache_renew", "bigint[], bigint[], bigint"},
		{"cache_release", "bigint[], bigint[]"},
		{"cache_look_leased", "text[], integer[], bigint[], bigint[], bigint[], bigint, integer, boolean"},
		{"cache_overtaken", "text, text[], text"},
		{"cache_dead_now", "text, text[], bigint[]"},
		{"cache_seen_now", "text, text[]"},
		{"cache_remove", "text, text[], boolean"},
		{"cache_compact", "text[]"},
		{"cache_bury", "bigint, integer, integer"},
		{"cache_horizon", ""},
		{"cache_note_ended", "bigint"},
		{"cache_retiring", ""},
		{"cache_mark_groups", ""},
		{"cache_watch_function", "text"},
		{"cache_watch_triggers", ""},
		{"cache_watch_tree", "oid"},
		{"cache_watch_faults", "text"},
	} {
		rights = append(rights, Right{ToWrite, "EXECUTE", f[0], f[1], ""})
	}
	return rights
}

// Held is what the role has of a Right.
type Held struct {
	Right
	Role    string
	There   bool   // the object exists
	Name    string // its full name, quoted where it must be
	Home    string // its schema, likewise
	Usable  bool   // the role may use the schema
	Held    bool   // and has the right
	Durable bool   // a table that outlives a crash
}

// AskRights reads the catalogs, in one statement, and touches no table of the cache.
func AskRights(ctx context.Context, db DB, n Names) ([]Held, error) {
	rights := Rights()
	list := func(field func(r Right) string) string {
		return arrayOf(len(rights), func(b *strings.Builder, i int) { quoteElement(b, field(rights[i])) })
	}
	rows, err := dbsqlc.New(db).Rights(ctx, dbsqlc.RightsParams{
		Schema:     n.Schema,
		Names:      list(func(r Right) string { return n.Prefix + r.Object }),
		Args:       list(func(r Right) string { return r.Args }),
		Privileges: list(func(r Right) string { return r.Privilege }),
		Columns:    list(func(r Right) string { return r.Columns }),
	})
	if err != nil {
		return nil, err
	}
	held := make([]Held, len(rows))
	for i, r := range rows {
		held[i] = Held{rights[i], r.Role, r.There, r.Object, r.Home, r.Usable, r.Held, r.Durable}
	}
	return held, nil
}

// Rights is AskRights of this cache.
func (s *Store) Rights(ctx context.Context) ([]Held, error) {
	return retry(ctx, lost, func() ([]Held, error) { return AskRights(ctx, s.db, s.Names) })
}

// String is the right as it stands in a GRANT.
func (h Held) String() string {
	columns := ""
	if h.Columns != "" {
		columns = " (" + h.Columns + ")"
	}
	return h.Privilege + columns + " on " + h.Name
}
