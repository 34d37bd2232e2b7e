package immediate

// The most of each that a size may ask for.
const (
	maxGets    = 2
	maxSets    = 2
	maxRemotes = 2
	maxQueue   = 8
)

// Versions. Only the change ordered compares them for more than being the same.
const (
	noVersion     = 0
	firstVersion  = 1  // the row that is there at the start
	localVersion  = 10 // and the next, of the node's Sets
	remoteVersion = 30 // and the next, of others' Sets
	deleteVersion = 50
)

// state is all there is to know at one moment.
type state struct {
	// The database.
	row     row
	commits int8
	queue   [maxQueue]note // to the node, in commit order
	queued  int8
	janitor bool // has come by

	// The node's listener.
	listening bool // LISTEN is in force: notifications are queued for it
	live      bool // and the node knows
	epoch     int8
	gap       int8 // how far the one gap has come: noGap, lost, halfBack or back

	// The node's local cache.
	entry    entry
	fetches  [maxGets]fetch // of the Get with the same number
	joinable int8           // the fetch that a Get may join + 1, 0 for none

	// Those who call.
	gets    [maxGets]get
	sets    [maxSets]set
	remotes [maxRemotes]bool // done
	deleted bool             // the Delete is done

	// A Get that starts now must return none older than these: the newest commit that the node has applied a notification of,
	// has set, has returned, and that was there when the listener came back.
	applied, set, returned, atLive int8

	// The commit that the first wrong Get returned, and the oldest that it might have returned. floor is 0 as long as none was
	// wrong.
	broken struct{ commit, floor int8 }
}

type row struct {
	there     bool
	tombstone bool
	version   int8
	commit    int8
}

// live says whether a read finds a value.
func (r row) live() bool { return r.there && !r.tombstone }

type note struct{ version, commit int8 }

type entry struct {
	there           bool
	version, commit int8
	epoch           int8
}

// fetch is a read of the row that is meant to fill the local cache.
type fetch struct {
	phase           phase // idle, begun, read or done
	dead            bool  // killed: it must not store
	epoch           int8
	version, commit int8 // what its snapshot saw
	found           bool
}

type get struct {
	phase phase // idle, begun (waiting for a fetch) or done
	fetch int8
	floor int8 // when it started
}

// set is a Set on the node. Its commit and its reply are apart.
type set struct {
	phase         phase // idle, begun, committed, done, or gaveUp and then committedLate
	dead          bool  // it must not store
	commit, epoch int8
}

func (s set) running() bool { return s.phase == begun || s.phase == committed }

type phase int8

const (
	idle phase = iota
	begun
	read
	committed
	done
	gaveUp
	committedLate
)

// The one gap in what the listener receives.
const (
	noGap int8 = iota
	lost
	halfBack // LISTEN has committed, the node does not know; with the change liveBeforeListen the other way round
	back
)

func start() state {
	return state{
		row:       row{there: true, version: firstVersion, commit: 1},
		commits:   1,
		listening: true,
		live:      true,
		epoch:     1,
	}
}

// floor is the oldest commit that a Get which starts now may return.
func (s *state) floor() int8 {
	floor := max(s.applied, s.set, s.returned)
	if s.live {
		floor = max(floor, s.atLive)
	}
	return floor
}

// setRunning says whether a Set of the node is under way.
func (s *state) setRunning() bool {
	for _, w := range s.sets {
		if w.running() {
			return true
		}
	}
	return false
}
