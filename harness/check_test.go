package main

import (
	"testing"
	"time"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// past makes histories. Its methods return the number of the write.
type past struct{ history }

func (p *past) open(node int, begun time.Duration) int {
	p.writes = append(p.writes, write{node: node, begun: begun, acked: never, expires: never})
	p.history.open = append(p.history.open, len(p.writes)-1)
	return len(p.writes) - 1
}

func (p *past) set(node int, begun, acked time.Duration) int {
	n := p.open(node, begun)
	p.doneAt(n, acked)
	return n
}

func (p *past) setFor(ttl time.Duration, node int, begun, acked time.Duration) int {
	n := p.open(node, begun)
	p.writes[n].ttl = ttl
	p.doneAt(n, acked)
	return n
}

func (p *past) remove(node int, begun, acked time.Duration) int {
	n := p.open(node, begun)
	p.writes[n].gone = true
	p.doneAt(n, acked)
	return n
}

// TestJudge holds one answer against one history. Each promise has histories that break it, beside others that come as
// close as is allowed.
func TestJudge(t *testing.T) {
	t.Parallel()
	// Two values of one writer: 0 from 100 to 110 ms, 1 from 200 to 210 ms.
	two := func(p *past) { p.set(0, 100*ms, 110*ms); p.set(0, 200*ms, 210*ms) }
	// Two writers at once, and a look at the table afterwards.
	race := func(p *past) { p.set(0, 100*ms, 120*ms); p.set(1, 110*ms, 130*ms); p.saw(1, 150*ms, 160*ms) }
	awaited := func(p *past) { p.set(0, 100*ms, 110*ms); p.open(0, 200*ms) }
	brief := func(p *past) { p.setFor(sec, 0, 100*ms, 110*ms) }

	for name, c := range map[string]struct {
		past func(*past)
		n    int // the value that came; -1: nothing
		read read
		want string // the promise that is broken
	}{
		"the newest":                         {two, 1, read{start: 300 * ms, applied: 250 * ms}, ""},
		"P1: older than applied":             {two, 0, read{start: 300 * ms, applied: 250 * ms}, "P1"},
		"not applied yet":                    {two, 0, read{start: 300 * ms, applied: 210 * ms}, ""},
		"P1: lost the race, published since": {race, 0, read{start: 300 * ms, applied: 161 * ms}, "P1"},
		"won the race":                       {race, 1, read{start: 300 * ms, applied: 161 * ms}, ""},
		"lost the race, nobody knew":         {race, 0, read{start: 300 * ms, applied: 160 * ms}, ""},

		"P2: 3 s behind":               {two, 0, read{start: 3*sec + 211*ms}, "P2"},
		"not quite 3 s behind":         {two, 0, read{start: 3*sec + 210*ms}, ""},
		"P2: a miss 3 s after a write": {two, -1, read{start: 4 * sec, end: 4 * sec}, "P2"},
		"P2: lost the race 3 s ago":    {race, 0, read{start: 3*sec + 161*ms}, "P2"},

		"P3: not its own write":         {two, 0, read{start: 215 * ms, own: 200 * ms}, "P3"},
		"P3: a miss after its own":      {two, -1, read{start: 215 * ms, end: 216 * ms, own: 200 * ms}, "P3"},
		"another's beside its own":      {race, 0, read{start: 140 * ms, own: 110 * ms}, ""},
		"a miss after a Delete":         {func(p *past) { p.set(0, 100*ms, 110*ms); p.remove(0, 200*ms, 210*ms) }, -1, read{start: 215 * ms, end: 216 * ms, own: 200 * ms}, ""},
		"P3: a value after its Delete":  {func(p *past) { p.set(0, 100*ms, 110*ms); p.remove(0, 200*ms, 210*ms) }, 0, read{start: 215 * ms, own: 200 * ms}, "P3"},
		"a miss beside a Delete's wait": {func(p *past) { two(p); p.writes[p.open(1, 205*ms)].gone = true }, -1, read{start: 215 * ms, end: 216 * ms, own: 200 * ms}, ""},

		"P4: went back":              {two, 0, read{start: 215 * ms, seen: 200 * ms}, "P4"},
		"P4: went back to nothing":   {two, -1, read{start: 215 * ms, end: 216 * ms, seen: 200 * ms}, "P4"},
		"P4: back over a Delete":     {func(p *past) { p.set(0, 100*ms, 110*ms); p.remove(0, 200*ms, 210*ms) }, 0, read{start: 215 * ms, seen: 200 * ms}, "P4"},
		"P4: lost before its expiry": {brief, -1, read{start: 500 * ms, end: 501 * ms, seen: 100 * ms}, "P4"},
		"expired":                    {brief, -1, read{start: 1100 * ms, end: 1101 * ms, seen: 100 * ms}, ""},
		"P4: saw what was not acked": {awaited, 0, read{start: 300 * ms, seen: 200 * ms}, "P4"},

		"P5: down and behind":       {two, 0, read{start: 211 * ms, down: true}, "P5"},
		"P5: down and lost":         {two, -1, read{start: 211 * ms, end: 212 * ms, down: true}, "P5"},
		"down, asked before":        {two, 0, read{start: 210 * ms, down: true}, ""},
		"P5: down, lost the race":   {race, 0, read{start: 170 * ms, down: true}, "P5"},
		"down, a write is awaited":  {awaited, 0, read{start: 300 * ms, down: true}, ""},
		"down, the awaited is seen": {awaited, 1, read{start: 300 * ms, end: 301 * ms, down: true}, ""},

		"P6: an old row":   {two, 0, read{node: table, start: 211 * ms, down: true}, "P6"},
		"P6: a lost row":   {two, -1, read{node: table, start: 211 * ms, end: 212 * ms, down: true}, "P6"},
		"P6: a row again":  {race, 0, read{node: table, start: 170 * ms, down: true}, "P6"},
		"the row it was":   {race, 1, read{node: table, start: 170 * ms, down: true}, ""},
		"P7: expired long": {brief, 0, read{start: 1161 * ms}, "P7"},
		"expired just now": {brief, 0, read{start: 1160 * ms}, ""},
		"P7: not begun":    {two, 1, read{start: 150 * ms, end: 199 * ms}, "P7"},
		"P7: a Delete's":   {func(p *past) { p.remove(0, 100*ms, 110*ms) }, 0, read{start: 300 * ms}, "P7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &past{history{name: "k"}}
			c.past(p)
			r := c.read
			r.end = max(r.end, r.start)
			if c.n >= 0 {
				r.found, r.value = true, p.valueOf(c.n)
			}
			want(t, p.judge(r), c.want)
		})
	}
}

func want(t *testing.T, v verdict, promise string) {
	t.Helper()
	switch {
	case v.breach == nil && promise != "":
		t.Errorf("passes, but breaks %s", promise)
	case v.breach != nil && v.breach.promise != promise:
		t.Errorf("want %q:\n%v", promise, v.breach)
	}
}

func TestValuesThatNobodyWrote(t *testing.T) {
	t.Parallel()
	p := &past{history{name: "k"}}
	p.set(3, 100*ms, 110*ms)
	for name, change := range map[string]func(*value){
		"another key's":    func(v *value) { v.Key = "j" },
		"another writer's": func(v *value) { v.Writer = 4 },
		"a later number":   func(v *value) { v.N = 1 },
		"no number":        func(v *value) { v.N = -1 },
		"a torn one":       func(v *value) { v.Pad = v.Pad[1:] },
		"the zero value":   func(v *value) { *v = value{} },
	} {
		r := read{start: 200 * ms, end: 200 * ms, found: true, value: p.valueOf(0)}
		want(t, p.judge(r), "")
		change(&r.value)
		t.Run(name, func(t *testing.T) { want(t, p.judge(r), "P7") })
	}
}

// A key that is loaded: what counts as written is what a loader has returned, and its expiry runs from the last store.
func TestJudgeLoads(t *testing.T) {
	t.Parallel()
	h := &history{name: "k", source: &source{}}
	h.done(h.update(0, sec))
	now := clock()
	r := read{start: now, end: now, found: true, value: h.valueOf(0)}
	want(t, h.judge(r), "P7") // no loader has returned it

	v := h.load()
	if v != h.valueOf(0) {
		t.Fatalf("loaded %v", v)
	}
	far := r
	far.start, far.end = now+time.Hour, now+time.Hour
	want(t, h.judge(far), "") // the loader's call may still be storing it
	h.stored(0)
	want(t, h.judge(r), "")
	want(t, h.judge(far), "P7")

	h.done(h.update(0, sec))
	r.start, r.end = clock(), clock()
	want(t, h.judge(r), "") // nobody here has applied the Delete
	r.applied = r.start
	want(t, h.judge(r), "P1")
	r.applied, r.node, r.down = 0, table, true
	want(t, h.judge(r), "P6") // stored over the Delete
	r.found = false
	want(t, h.judge(r), "") // entries come and go
}

// What is loaded while its key moves is not stored: what has not finished may be seen, and then not be seen, until it has.
func TestJudgeWhileMoving(t *testing.T) {
	t.Parallel()
	h := &history{name: "k", source: &source{}}
	h.done(h.update(0, 0))
	n := h.update(0, 0)
	h.load()
	now := clock()
	r := read{op: "GetOrSet", start: now, end: now, found: true, value: h.valueOf(n)}
	if v := h.judge(r); v.breach != nil || v.seen == 0 {
		t.Errorf("settled: %+v", v)
	}
	r.moving = true
	if v := h.judge(r); v.breach != nil || v.seen != 0 {
		t.Errorf("moving: %+v", v)
	}
	r.op = "Get"
	if v := h.judge(r); v.breach != nil || v.seen == 0 {
		t.Errorf("a Get: %+v", v)
	}
	r.op = "GetOrSet"
	h.done(n)
	if v := h.judge(r); v.breach != nil || v.seen == 0 {
		t.Errorf("moving, and finished: %+v", v)
	}
}

// A read is bound to what the shard of its key has applied; where it has moved meanwhile, to what all have.
func TestBounds(t *testing.T) {
	t.Parallel()
	b := bounds{shard: 1, applied: []time.Duration{10, 20, 30}, down: []bool{true, false, true}}
	if applied, down, moving := b.of(1); applied != 20 || down || moving {
		t.Error(applied, down, moving)
	}
	for _, shard := range []int{-1, 0, 2} {
		if applied, down, moving := b.of(shard); applied != 10 || down || !moving {
			t.Error(shard, applied, down, moving)
		}
	}
	b.shard, b.down[1] = -1, true
	if _, down, moving := b.of(-1); !down || !moving {
		t.Error(down, moving)
	}
}

// What a miss proves: the earliest of what may explain it has been seen.
func TestMissIsSeen(t *testing.T) {
	t.Parallel()
	p := &past{history{name: "k"}}
	p.set(0, 100*ms, 110*ms)
	p.remove(0, 200*ms, 210*ms)
	p.set(0, 300*ms, 310*ms)
	v := p.judge(read{start: 305 * ms, end: 306 * ms, seen: 100 * ms})
	if v.breach != nil || v.seen != 200*ms {
		t.Fatalf("%+v", v)
	}
	want(t, p.judge(read{start: 307 * ms, end: 308 * ms, seen: v.seen, found: true, value: p.valueOf(0)}), "P4")
}

func TestBehind(t *testing.T) {
	t.Parallel()
	p := &past{history{name: "k"}}
	p.set(0, 100*ms, 110*ms)
	p.set(0, 200*ms, 210*ms)
	p.set(0, 300*ms, 310*ms)
	for start, want := range map[time.Duration]time.Duration{150 * ms: 0, 210 * ms: 0, 240 * ms: 30 * ms, 410 * ms: 200 * ms} {
		if v := p.judge(read{start: start, end: start, found: true, value: p.valueOf(0)}); v.behind != want {
			t.Errorf("read at %v: %v behind, want %v", start, v.behind, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	if h.quantile(.99) != 0 || h.mean() != 0 || h.quantileOver(.5) != 0 {
		t.Error("an empty one is not 0")
	}
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * ms)
	}
	var sum histogram
	sum.add(0)
	sum.merge(&h)
	for _, c := range []struct{ got, want time.Duration }{
		{sum.quantile(.5), 500 * ms},
		{sum.quantile(.99), 990 * ms},
		{sum.quantile(1), sec},
		{sum.max, sec},
		{sum.mean(), 500 * ms},
		{sum.quantileOver(.001), ms},
	} {
		if d := (c.got - c.want).Abs(); d > c.want*4/100 {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	if sum.quantile(.0001) != 0 || sum.over() != 1000 {
		t.Error(sum.quantile(.0001), sum.over())
	}
}
