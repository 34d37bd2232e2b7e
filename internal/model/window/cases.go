package window

// scenario says how much happens; every order of it is tried. There is always R's Delete, R's death, and every flush
// that anybody is bound to make.
type scenario struct {
	gets, sets int  // of L
	remotes    int  // Sets of R
	givesUp    bool // L's last Set may give up and commit later
	inline     bool // R's writes may publish inline
	localNow   bool // L's Sets publish inline
	gap        bool // L's listener is lost once
	aborts     int8 // flushes that fail by themselves
	stuck      bool // no flush ever succeeds
	never      ops  // the operations whose rows no node keeps in memory (LocalNever)
}

var (
	plain      = scenario{gets: 2, sets: 1, remotes: 1, givesUp: true}
	gap        = scenario{gets: 1, sets: 1, remotes: 1, givesUp: true, inline: true, gap: true, aborts: 1}
	contention = scenario{gets: 1, sets: 2, remotes: 1, givesUp: true}
	localNow   = scenario{gets: 1, sets: 1, remotes: 1, localNow: true, gap: true, aborts: 1}
	join       = scenario{gets: 2, sets: 0, remotes: 2, gap: true}
	stuck      = scenario{gets: 2, sets: 1, remotes: 1, givesUp: true, gap: true, stuck: true}
	never      = scenario{gets: 2, sets: 1, remotes: 2, never: 1<<opRemoteA | 1<<opRemoteB}
	neverOwn   = scenario{gets: 2, sets: 1, remotes: 1, givesUp: true, inline: true, never: 1<<opSetA | 1<<opRemoteA}

	// These take minutes and gigabytes.
	twoRemotes = scenario{gets: 1, sets: 1, remotes: 2, givesUp: true, gap: true, aborts: 1}
	twoGets    = scenario{gets: 2, sets: 1, remotes: 1, givesUp: true, gap: true, aborts: 1}
)

// change is something that a model does differently from the algorithm.
type change int

const (
	none change = iota

	noKill
	joinDead
	noEpoch
	noDeadSet
	noContention
	noKillAtEnd
	noEviction
	liveBeforeListen
	silentDelete

	forgetAny
	forgetOlder
	ackless
	gapForgets
	abortForgets
	skipLocked
	splitDelete
	deleteFirst
	noPulse
	noForget
	busySettles
	ownRows
	logBefore
	logAfter
	collapseWrong

	giveUpForgets
	forgetNewer
	compareAll
	notifyFirst
	skipReturning
	fillDuringSet

	keepsNever
	silentNever
)

// mutants each take one rule away, and must be caught. The first nine are those of package immediate.
var mutants = []struct {
	change change
	says   string
	where  scenario // where it is caught
}{
	{noKill, "a notification does not kill fetches", plain},
	{joinDead, "a killed fetch can be joined", plain},
	{noEpoch, "entries and fetches outlive their epoch", gap},
	{noDeadSet, "another's notification leaves a Set under way alone", plain},
	{noContention, "Sets that overlap on L both store", contention},
	{noKillAtEnd, "a Set kills no fetches at its end", plain},
	{noEviction, "a read that saw another version evicts nothing", plain},
	{liveBeforeListen, "live before LISTEN has committed", gap},
	{silentDelete, "a Delete leaves no log row", plain},

	{forgetAny, "any notification takes every pending change off", plain},
	{forgetOlder, "an older version of the key takes the pending change off", plain},
	{ackless, "a flush takes off pending changes of writes not acknowledged when it began", plain},
	{gapForgets, "a lost listener takes the pending changes off", gap},
	{abortForgets, "a flush that failed takes pending changes off", gap},
	{skipLocked, "a flush skips locked rows, and takes their pending changes off", plain},
	{splitDelete, "a flush says what it read, then deletes everything in a second transaction", plain},
	{deleteFirst, "a flush deletes, then publishes in a second transaction", plain},
	{noPulse, "there are no pulses", plain},
	{noForget, "a pulse that can't flush forgets nothing", stuck},
	{busySettles, "a flush beside another takes its own pending changes off", plain},
	{ownRows, "flushes and pulses drain the own rows only", plain},
	{logBefore, "the log row commits before the write", plain},
	{logAfter, "the log row commits after the write", plain},
	{keepsNever, "a fetch stores a row that nobody keeps", never},
	{silentNever, "what nobody keeps is silent in the place of a row that may be kept", never},
	{collapseWrong, "of several versions of a key a notification names first one that is not the newest", plain},
}

// variants differ from the algorithm and must hold too: what they do is safe, and was left out for other reasons.
var variants = []struct {
	change change
	says   string
	where  []scenario
}{
	{giveUpForgets, "a Set that gave up takes its pending change off, and a pulse finds its late commit", []scenario{plain}},
	{forgetNewer, "a newer version of the key takes the pending change off as well", []scenario{plain, localNow}},
	{compareAll, "every version listed is compared, not the newest alone", []scenario{plain, localNow}},
	{notifyFirst, "a flush publishes, then deletes exactly what it published in a second transaction", []scenario{plain}},
	{skipReturning, "a flush skips locked rows, and takes off the pending changes of what it drained", []scenario{plain}},
	{fillDuringSet, "fetches that begin while a Set of L runs may store", []scenario{plain, localNow}},
}
