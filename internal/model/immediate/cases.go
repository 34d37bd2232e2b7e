package immediate

// size says how much happens.
type size struct {
	gets, sets, remotes int // by the node, by the node, by others; beside one Delete by others and one gap
}

var (
	narrow     = size{gets: 1, sets: 1, remotes: 1}
	wide       = size{gets: 2, sets: 1, remotes: 1}
	contention = size{gets: 1, sets: 2, remotes: 1}
	widest     = size{gets: 2, sets: 1, remotes: 2}
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
	ordered
	fillDuringSet
)

// mutants each take one rule away, and must be caught.
var mutants = []struct {
	change change
	says   string
	size   size // where it is caught
}{
	{noKill, "a notification does not kill fetches", wide},
	{joinDead, "a killed fetch can be joined", wide},
	{noEpoch, "entries and fetches outlive their epoch", wide},
	{noDeadSet, "another's notification leaves a Set under way alone", wide},
	{noContention, "Sets that overlap on the node both store", contention},
	{noKillAtEnd, "a Set kills no fetches at its end", wide},
	{noEviction, "a read that saw another version evicts nothing", wide},
	{liveBeforeListen, "live before LISTEN has committed", wide},
	{silentDelete, "a Delete does not notify", wide},
	{ordered, "an older version is evicted rather than another one, and versions begin anew with a new row", wide},
}

// variants differ from the algorithm and must hold too: they are as correct, but the algorithm does otherwise.
var variants = []struct {
	change change
	says   string
}{
	{fillDuringSet, "fetches that begin while a Set of the node runs may store"},
}
