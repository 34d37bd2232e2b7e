package window

// op is one of the operations that happen, and the version that it makes.
type op int8

const (
	opInit    op = iota // made the row that is there at the start
	opSetA              // L's Set
	opSetB              // L's second Set
	opRemoteA           // R's Set
	opRemoteB           // R's second Set
	opDelete            // R's Delete
	numOps
	noOp op = -1
)

// ops is a set of operations, or of the log rows that they left, or of the pending changes that wait for them.
type ops uint8

func (o op) bit() ops           { return 1 << o }
func (s ops) has(o op) bool     { return s&o.bit() != 0 }
func (s ops) without(t ops) ops { return s &^ t }

const (
	ofL ops = 1<<opSetA | 1<<opSetB
	ofR ops = 1<<opRemoteA | 1<<opRemoteB | 1<<opDelete
)

// node is one of those who flush.
type node int8

const (
	nodeL node = iota
	nodeR
)

func (x node) own() ops {
	if x == nodeL {
		return ofL
	}
	return ofR
}

func setOp(i int) op    { return opSetA + op(i) }
func remoteOp(i int) op { return opRemoteA + op(i) }

const (
	maxQueue   = 10
	maxForgets = 2
)

// state is all there is to know at one moment.
type state struct {
	// The database.
	row       op           // who made the row that is there, or noOp
	commits   int8         // so far
	at        [numOps]int8 // the commit that each operation was, 0 before it
	due       ops          // what others have to learn of: all but the silent inserts
	log       ops          // committed log rows that no committed flush has drained
	published ops          // what a committed notification has named
	flushes   [2]flush     // of L and of R
	aborts    int8         // flushes that have failed by themselves
	forgets   int8         // pulses of L that could not flush

	// What is on its way to L.
	listening bool
	queue     [maxQueue]ops
	queued    int8

	pending ops // pending own operations, of both nodes
	rDead   bool

	// L's listener and local cache.
	live     bool
	epoch    int8
	entry    entry
	fetches  [2]fetch // of the Get with the same number
	joinable int8     // the fetch that a Get may join + 1, 0 for none
	gets     [2]get
	sets     [2]set
	floor    int8 // the oldest commit that a Get which starts now may return (P1, P3, P4)

	// How far the rest has come.
	remotes [2]remote
	deleted bool
	janitor bool
	gap     int8 // noGap, lost, halfBack or back

	// The commit that the first wrong Get returned, and the oldest that it might have returned. floor is 0 as long as none was
	// wrong.
	broken struct{ commit, floor int8 }
}

type entry struct {
	there bool
	op    op
	epoch int8
}

// fetch is a read of the row that is meant to fill the local cache: a Read of package coherence.
type fetch struct {
	phase phase // idle, begun, read or done
	dead  bool  // killed: it must not store
	epoch int8
	op    op   // whose row its snapshot saw
	upTo  int8 // the newest commit in its snapshot
}

type get struct {
	phase        phase // idle, begun (waiting for a fetch) or done
	fetch, floor int8
}

// set is a Set of L. Its commit and its reply are apart.
type set struct {
	phase phase // idle, begun, committed, done (acknowledged), or gaveUp and then committedLate
	dead  bool  // it must not store
	epoch int8
}

func (w set) running() bool { return w.phase == begun || w.phase == committed }

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

// flush is one flush transaction. What it deletes is gone for others from its commit on, so its locks and its commit
// are one step; only changes of the algorithm split them, at halfway.
type flush struct {
	stage        stage
	snapshot     ops // the log rows that it sees
	held         ops // halfway: those that it has locked, deleted or published
	acknowledged ops // own pending changes whose writes were acknowledged when it began
}

type stage int8

const (
	notFlushing stage = iota
	started
	halfway
)

// remote is how far a Set of R has come: its commit and its reply are one step.
type remote int8

const (
	remoteIdle remote = iota
	remoteDone
	remoteHalf // the log row without the write, or the write without the log row
)

// The one gap in what L's listener receives.
const (
	noGap int8 = iota
	lost
	halfBack // LISTEN has committed, L is not live yet; with the change liveBeforeListen the other way round
	back
)

func start() state {
	return state{
		row:       opInit,
		commits:   1,
		at:        [numOps]int8{opInit: 1},
		listening: true,
		live:      true,
		epoch:     1,
	}
}

// forget clears what cannot matter any more, so that states which differ in nothing else become equal. No node forgets by this.
func (s *state) forget() {
	for x := range s.flushes {
		f := &s.flushes[x]
		if f.stage == started {
			f.snapshot &= s.log // a log row that was drained never comes back
		}
		f.acknowledged &= s.pending
	}
}
