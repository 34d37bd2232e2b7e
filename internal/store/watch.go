package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/sqlerr"
)

// Watch is what the triggers of a table remove.
type Watch struct {
	Table      string // as it stands in SQL
	Keys, Tags []string
	Most       int // how many names a transaction removes one by one; for more it removes whole prefixes
}

// watchPause is the first pause before a table that is in use is tried again. Each is twice as long as the last, up to 20 times this.
const watchPause = 50 * time.Millisecond

// WatchTable installs the triggers. It must lock the table, and tries again after growing pauses until no open transaction has written the
// table, or ctx ends. Each try may keep writers of the table waiting for 100 ms.
func (s *Store) WatchTable(ctx context.Context, w Watch) (changed bool, err error) {
	return untilFree(ctx, func() (bool, error) {
		return s.q.WatchTable(ctx, dbsqlc.WatchTableParams{Watched: w.Table, Keys: textArray(w.Keys), Tags: textArray(w.Tags), Most: int32(w.Most)})
	})
}

// UnwatchTable removes the triggers. Writers may have to wait as in WatchTable.
func (s *Store) UnwatchTable(ctx context.Context, table string) (changed bool, err error) {
	return untilFree(ctx, func() (bool, error) { return s.q.UnwatchTable(ctx, table) })
}

// untilFree sends a statement again while locks keep it from being done at once.
func untilFree(ctx context.Context, send func() (bool, error)) (changed bool, err error) {
	for pause := watchPause; ; pause = min(2*pause, 20*watchPause) {
		changed, err = retry(ctx, notDone, send)
		if !sqlerr.Locked(err) {
			return changed, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return changed, err
		}
	}
}

// SQL is the statement that watches the table, for those who migrate with a tool of their own.
func (w Watch) SQL(n Names) string {
	array := func(texts []string) string { return quoteLiteral(textArray(texts)) }
	return n.Render("SELECT /* TEMPLATE: prefix */cache_watch(") + quoteLiteral(w.Table) + ", " + array(w.Keys) + ", " + array(w.Tags) + ", " + strconv.Itoa(w.Most) + ");"
}

// quoteLiteral writes s as SQL does, whatever standard_conforming_strings says.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + quoted
	}
	return quoted
}
