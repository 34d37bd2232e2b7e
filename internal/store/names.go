package store

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
)

// maxIdentifier is what Postgres keeps of a name, in bytes; beyond it names are cut off and may collide.
const maxIdentifier = 63

// longestName is the longest name that the migrations give to an object, without the prefix. TestLongestPrefix in pgcache compares them.
const longestName = "cache_incarnation_pkey"

// Names says what the objects of one cache are called.
type Names struct {
	Schema  string // "" follows search_path
	Prefix  string
	Channel string // "" is made of schema and prefix
	Durable bool   // a logged table
	Hidden  bool   // messages name keys by their hashes
}

var identifier = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// Resolve checks the names and fills in the channel. Every error names the option and what is wrong with it.
func (n Names) Resolve() (Names, error) {
	check := func(option, s string, limit int) error {
		switch {
		case s != "" && !identifier.MatchString(s):
			return fmt.Errorf("%s %.70q: only letters, digits and _ are allowed", option, s)
		case len(s) > limit:
			return fmt.Errorf("%s %.70q: %d bytes, at most %d are allowed", option, s, len(s), limit)
		}
		return nil
	}
	if err := check("Schema", n.Schema, maxIdentifier); err != nil {
		return n, err
	}
	if strings.HasPrefix(n.Schema, "pg_") || n.Schema == "information_schema" {
		return n, fmt.Errorf("%s %.70q: it is one of Postgres' own", "Schema", n.Schema)
	}
	if err := check("Prefix", n.Prefix, maxIdentifier-len(longestName)); err != nil {
		return n, err
	}
	if err := check("Channel", n.Channel, maxIdentifier); err != nil {
		return n, err
	}
	if n.Channel == "" {
		// Channels belong to the database, not to a schema: two caches of one prefix in two schemas need two.
		n.Channel = n.Prefix + "cache_events"
		if n.Schema != "" {
			n.Channel = n.Schema + "_" + n.Channel
		}
		if len(n.Channel) > maxIdentifier {
			h := fnv.New64a()
			h.Write([]byte(n.Schema + "." + n.Prefix))
			n.Channel = fmt.Sprintf("cache_events_%016x", h.Sum64())
		}
	}
	return n, nil
}

// Table is the full quoted name of the table of entries.
func (n Names) Table() string { return n.object("cache_entries") }

// Tables are the full quoted names of the tables whose rows come and go; the others are State, cache_incarnation and cache_watches.
func (n Names) Tables() [5]string {
	return [5]string{n.object("cache_entries"), n.object("cache_changes"), n.object("cache_notices"), n.object("cache_groups"), n.object("cache_leases")}
}

// Groups is the full quoted name of the table of removal records, which is as durable as that of the entries.
func (n Names) Groups() string { return n.object("cache_groups") }

// State is the full quoted name of the table whose one row describes the cache: its schema version, id and channel.
func (n Names) State() string { return n.object("cache_state") }

func (n Names) object(name string) string {
	quoted := `"` + n.Prefix + name + `"`
	if n.Schema != "" {
		quoted = `"` + n.Schema + `".` + quoted
	}
	return quoted
}

var template = regexp.MustCompile(`/\* TEMPLATE: (\w+) \*/(\w+|'\w+')`)

// Render fills in the templates of a statement or a migration. A template is a comment before the word that it replaces,
// so the text is valid SQL as it stands, for sqlc and for psql:
//
//   - prefix: the full quoted name of an object;
//   - bare: the name of a constraint, which has no schema;
//   - persistence: UNLOGGED, unless the tables are durable;
//   - any_removal: see anyRemoval.
func (n Names) Render(sql string) string {
	return template.ReplaceAllStringFunc(sql, func(s string) string {
		m := template.FindStringSubmatch(s)
		switch kind, word := m[1], m[2]; kind {
		case "prefix":
			return n.object(word)
		case "bare":
			return `"` + n.Prefix + word + `"`
		case "persistence":
			if n.Durable {
				return ""
			}
			return word
		case "any_removal":
			return n.anyRemoval()
		default:
			return s
		}
	})
}

// anyRemoval is the condition under which there may be a removal record, of any group. Every statement has it, so it reads a sequence
// alone, which is 1 only while the table of records is empty: see 007. To read the size of that table instead would add a tenth to the
// time of a Get. To look for a record would add a tenth more, and 10 ms for every 100,000 deleted records that an old snapshot keeps.
func (n Names) anyRemoval() string {
	return fmt.Sprintf("(pg_sequence_last_value('%s') IS DISTINCT FROM 1)", n.object("cache_groups_mark"))
}

// Class is the first number of the advisory locks of this cache. The two-number key space keeps them apart from the
// single-number locks that applications and migration tools use.
func (n Names) Class() int32 { return Hash(n.Space()) }

// KeyClass is the first number of the advisory locks on keys, whose second number is a hash. It is not Class, because a key whose hash
// is flushLock would then keep every flush waiting while its loader runs.
func (n Names) KeyClass() int32 { return KeyClass(n.Space()) }

// Space names the cache in its database.
func (n Names) Space() string { return n.Schema + "." + n.Prefix + "cache" }

// NamesOf are the names of the cache that Space names. ok is false if there is none of that name.
func NamesOf(space string) (n Names, ok bool) {
	schema, table, ok := strings.Cut(space, ".")
	prefix, whole := strings.CutSuffix(table, "cache")
	n, err := Names{Schema: schema, Prefix: prefix}.Resolve()
	return n, ok && whole && err == nil
}

// KeyClass is the class of the keys of a space.
func KeyClass(space string) int32 { return Hash(space + " keys") }

// Hash makes a lock number of a name. Two names of one number only wait for each other.
func Hash(name string) int32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int32(h.Sum32())
}
