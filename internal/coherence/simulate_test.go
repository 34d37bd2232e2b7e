package coherence

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "run this one schedule of TestSimulate and print it")
	schedulesFlag = flag.Uint64("schedules", 0, "how many schedules TestSimulate runs")
)

// TestSimulate runs the real Tracker through random schedules of everything that can happen to a node, and checks the
// promises after every step. It has no goroutines: a schedule is its seed, and a failing one is printed with its steps.
//
//	go test ./internal/coherence -run TestSimulate -seed 4711         that one again
//	go test ./internal/coherence -run TestSimulate -schedules 30000000   a long walk
func TestSimulate(t *testing.T) {
	t.Parallel()
	if *seedFlag != 0 {
		if err := newSimulation(bent{}).run(*seedFlag, func(format string, args ...any) { t.Logf(format, args...) }); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *schedulesFlag
	switch {
	case n != 0:
	case testing.Short() || underRace:
		n = 20_000
	default:
		n = 300_000
	}
	s := newSimulation(bent{})
	if seed, err := s.search(n); err != nil {
		t.Fatalf("schedule %d: %v\n%s", seed, err, replay(bent{}, seed))
	}
	// A tracker that keeps nothing is always right. This one must be of use.
	t.Logf("%d schedules, %d steps: %+v", n, s.steps, s.w.counts)
	if c := s.w.counts; c.hits < int(n)/4 || c.joins < int(n)/20 || c.kept < int(n)*2/5 {
		t.Errorf("in %d schedules there were only %+v", n, c)
	}
}

// TestSimulateNotices bends the world in ways that no tracker could make up for: the checks must notice.
func TestSimulateNotices(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]bent{
		"live before LISTEN":         {beatFirst: true},
		"a Delete is not published":  {silentDelete: true},
		"a lost notification":        {lossy: true},
		"a removal is not published": {silentGroup: true},
		"a row that is never kept takes the place of one that is, in silence": {silentOut: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed, err := newSimulation(b).search(20_000)
			if err == nil {
				t.Fatal("not noticed")
			}
			t.Logf("schedule %d: %v", seed, err)
		})
	}
}

// simulation runs schedules, one after the other, on one Tracker that must be as new after each.
type simulation struct {
	w       *world
	near    [2]Key // two keys of one stripe
	far     [2]Key // of two stripes
	steps   int
	enabled []int // the steps of this schedule, each as often as its weight says
	pcg     *rand.PCG
}

func newSimulation(b bent) *simulation {
	s := &simulation{pcg: rand.NewPCG(0, 0)}
	local := memory{}
	s.w = &world{rng: rand.New(s.pcg), bent: b, local: local, tr: New(local, 0)}
	// Where a key goes is drawn by lot for each Tracker.
	a := Key{Name: "a"}
	s.near, s.far = [2]Key{a}, [2]Key{a}
	for i := 0; s.near[1].Name == "" || s.far[1].Name == ""; i++ {
		if k := (Key{Name: fmt.Sprint("b", i)}); s.w.tr.stripe(k) == s.w.tr.stripe(a) {
			s.near[1] = k
		} else {
			s.far[1] = k
		}
	}
	return s
}

// search runs n schedules and returns the first that fails.
func (s *simulation) search(n uint64) (seed uint64, err error) {
	for seed = 1; seed <= n; seed++ {
		if err := s.run(seed, nil); err != nil {
			return seed, err
		}
	}
	return 0, nil
}

// replay prints a schedule.
func replay(b bent, seed uint64) string {
	var steps strings.Builder
	err := newSimulation(b).run(seed, func(format string, args ...any) { fmt.Fprintf(&steps, "\t"+format+"\n", args...) })
	return fmt.Sprintf("%s\t%v\nreplay it with -run TestSimulate -seed %d", steps.String(), err, seed)
}

// run runs one schedule.
func (s *simulation) run(seed uint64, traced func(string, ...any)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(r)
			}
			err = errors.New(string(v))
		}
	}()
	w := s.begin(seed, traced)
	for range 12 + w.rng.IntN(44) {
		s.step()
		w.check()
	}
	s.end()
	return nil
}

// begin makes the world of a schedule: its size, and which steps it has. Leaving out some kinds of steps lets the others
// come in combinations that a mixture of all would hardly ever show.
func (s *simulation) begin(seed uint64, traced func(string, ...any)) *world {
	s.pcg.Seed(seed, 0x9e3779b97f4a7c15)
	old := s.w
	*s.w = world{
		rng: old.rng, bent: old.bent, tr: old.tr, local: old.local, counts: old.counts, traced: traced,
		queue: old.queue[:0], expiry: append(old.expiry[:0], never), reads: old.reads[:0], joiners: old.joiners[:0], writes: old.writes[:0],
		txs: old.txs[:0], tags: append(old.tags[:0], nil), saw: append(old.saw[:0], allRecords), records: old.records[:0], removals: old.removals[:0],
	}
	w := s.w
	switch keys := w.rng.IntN(4); keys {
	case 0:
		w.keys = s.near[:]
	case 1:
		w.keys = s.far[:]
	default:
		w.keys = s.near[:1]
	}
	w.grouped = seed%3 == 0 // removals take the place of other steps, and schedules are short
	w.outs = seed%5 == 0
	w.gets, w.sets = 1+w.rng.IntN(3), w.rng.IntN(4)
	w.rows, w.gone = make([]row, len(w.keys)), make([]int, len(w.keys))
	for p := range w.floors {
		w.floors[p] = make([]int, len(w.keys))
	}
	if seed%4 == 0 {
		w.secret = []byte("secret")
	}
	w.tr.Hide(w.secret)
	w.listening = true
	w.beat()
	for key := range w.keys {
		if w.rng.IntN(4) > 0 {
			w.put(key, w.value(w.version(), never))
		}
	}
	s.enabled = s.enabled[:0]
	for i, st := range steps {
		if removal := strings.Contains(st.name, "remov"); removal && !w.grouped {
			continue
		}
		if st.always || w.rng.IntN(3) == 0 {
			for range st.weight {
				s.enabled = append(s.enabled, i)
			}
		}
	}
	return w
}

// step takes one of the steps that can be taken now. A schedule in which nothing can be taken is rare and ends early.
func (s *simulation) step() {
	w := s.w
	for range 50 {
		if steps[s.enabled[w.rng.IntN(len(s.enabled))]].do(w) {
			s.steps++
			return
		}
	}
}

// end lets everything that is under way come to its end, and looks at what is left.
func (s *simulation) end() {
	w := s.w
	for len(w.reads) > 0 {
		r := w.reads[0]
		if !r.snapped {
			r.snap(w)
		}
		r.finish(w, nil)
		w.check()
	}
	for len(w.writes) > 0 {
		o := w.writes[0]
		w.writes = w.writes[1:]
		if !o.gaveUp {
			o.finish(w, false)
			w.check()
		}
	}
	for _, x := range w.txs {
		if !x.ended {
			x.rollback()
		}
		for _, p := range x.parts {
			p.end()
		}
		w.check()
	}
	for len(w.queue) > 0 {
		w.deliver(1, false)
		w.check()
	}
	for i := range w.tr.stripes {
		if st := &w.tr.stripes[i]; len(st.reads)+len(st.writers)+len(st.loads)+len(st.watches)+len(st.txs) > 0 {
			w.wrong("the tracker still holds %d reads and %d writers of those that have ended", len(st.reads), len(st.writers))
		}
	}
	if g := &w.tr.groups; len(g.txs) > 0 || g.open.Load() != 0 {
		w.wrong("the tracker still holds %d removals of transactions that have ended", len(g.txs))
	}
	w.tr.Down()
	w.local.Clear()
	w.tr.groups.byTag, w.tr.groups.size = nil, 0
}
