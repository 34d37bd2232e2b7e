package main

import (
	"testing"
	"time"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// past makes a history. Its methods return the number of the write.
type past struct{ history }

func (p *past) add(gone bool, begun, acked time.Duration) int {
	p.writes = append(p.writes, write{gone: gone, begun: begun, acked: acked})
	return len(p.writes) - 1
}

func (p *past) set(begun, acked time.Duration) int    { return p.add(false, begun, acked) }
func (p *past) remove(begun, acked time.Duration) int { return p.add(true, begun, acked) }

// TestJudge holds one answer against one history. Each promise has histories that break it, beside others that come as
// close as is allowed.
func TestJudge(t *testing.T) {
	t.Parallel()
	two := func(p *past) { p.set(100*ms, 110*ms); p.set(200*ms, 210*ms) }
	gone := func(p *past) { p.set(100*ms, 110*ms); p.remove(200*ms, 210*ms) }
	back := func(p *past) { gone(p); p.set(300*ms, 310*ms) }
	unknown := func(p *past) { p.set(100*ms, 110*ms); p.set(200*ms, never); p.set(300*ms, 310*ms) }
	late := func(p *past) { unknown(p); p.writes[1].there = 400 * ms }
	after := func(p *past) { late(p); p.set(500*ms, 510*ms) }
	wiped := func(p *past) { p.set(100*ms, 110*ms); p.wipes = append(p.wipes, wipe{200 * ms, 210 * ms}) }
	loaded := func(p *past) { two(p); p.kind = sourced }
	const none = -1
	for name, c := range map[string]struct {
		past      func(*past)
		n         int // what came
		start     time.Duration
		own, seen int
		row, down bool
		want      string
		lag       time.Duration
	}{
		"the newest":              {two, 1, 9 * sec, none, none, false, false, "", 0},
		"P2: 4 s behind":          {two, 0, 4*sec + 211*ms, none, none, false, false, "P2", 0},
		"not quite 4 s behind":    {two, 0, 4*sec + 210*ms, none, none, false, false, "", 4 * sec},
		"P2: a miss 4 s after":    {two, none, 4*sec + 211*ms, none, none, false, false, "P2", 0},
		"P2: 4 s after a Delete":  {gone, 0, 4*sec + 211*ms, none, none, false, false, "P2", 0},
		"P2: gone for 4 s":        {back, none, 4*sec + 311*ms, none, none, false, false, "P2", 0},
		"not quite for 4 s":       {back, none, 4*sec + 310*ms, none, none, false, false, "", 4 * sec},
		"gone":                    {gone, none, 9 * sec, none, none, false, false, "", 0},
		"P2: 4 s after a wipe":    {wiped, 0, 4*sec + 211*ms, none, none, false, false, "P2", 0},
		"wiped":                   {wiped, none, 9 * sec, 0, 0, false, false, "", 0},
		"P3: not its own":         {two, 0, 220 * ms, 1, none, false, false, "P3", 0},
		"P3: not its own, a miss": {two, none, 220 * ms, 1, none, false, false, "P3", 0},
		"its own Delete":          {gone, none, 220 * ms, 1, none, false, false, "", 0},
		"P4: back":                {two, 0, 220 * ms, none, 1, false, false, "P4", 0},
		"P4: back to nothing":     {back, none, 320 * ms, none, 2, false, false, "P4", 0},
		"P4: back over a Delete":  {gone, 0, 220 * ms, none, 1, false, false, "P4", 0},
		"it may have come late":   {unknown, 1, 9 * sec, 2, 2, false, false, "", 0},
		"P2: that can't be late":  {unknown, 0, 9 * sec, none, none, false, false, "P2", 0},
		"it has come, somewhere":  {late, 0, 4*sec + 311*ms, none, none, false, false, "P2", 0},
		"it has come late":        {late, 1, 9 * sec, 2, 2, false, false, "", 0},
		"P2: gone after it came":  {after, 1, 4*sec + 511*ms, none, none, false, false, "P2", 0},
		"not quite gone":          {after, 1, 4*sec + 510*ms, none, none, false, false, "", 4 * sec},
		"P5: behind":              {two, 0, 211 * ms, none, none, false, true, "P5", 0},
		"P5: a miss":              {two, none, 211 * ms, none, none, false, true, "P5", 0},
		"asked before the ack":    {two, 0, 210 * ms, none, none, false, true, "", 0},
		"P6: an old row":          {two, 0, 211 * ms, none, none, true, false, "P6", 0},
		"P6: a row after a wipe":  {wiped, 0, 211 * ms, none, none, true, false, "P6", 0},
		"P6: no row":              {two, none, 211 * ms, none, none, true, false, "P6", 0},
		"the row":                 {two, 1, 211 * ms, none, none, true, false, "", 0},
		"the row before the ack":  {two, 0, 209 * ms, none, none, true, false, "", 0},
		"P6: loaded before":       {loaded, 0, 211 * ms, none, none, true, false, "P6", 0},
		"nothing is loaded":       {loaded, none, 9 * sec, 1, 1, true, false, "", 0},
		"P7: not begun":           {two, 1, 150 * ms, none, none, false, false, "P7", 0},
		"P7: no such write":       {two, 2, 9 * sec, none, none, false, false, "P7", 0},
		"P7: a Delete's":          {gone, 1, 9 * sec, none, none, false, false, "P7", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &past{history{name: "k"}}
			c.past(p)
			r := read{who: "node 1", start: c.start, end: c.start, own: c.own, seen: c.seen, bound: 4 * sec, isRow: c.row, down: c.down}
			if c.row {
				r.bound = 0
			}
			if c.n != none {
				r.found, r.value = true, p.value(c.n)
			}
			got := ""
			v := p.judge(r)
			if v.violation != nil {
				got = v.violation.promise
			}
			if got != c.want {
				t.Fatalf("got %q, want %q: %v", got, c.want, v.violation)
			}
			if got == "" && !c.row && v.lag != c.lag {
				t.Errorf("lag %v, want %v", v.lag, c.lag)
			}
		})
	}
}

// A value that is torn, or another key's, was written by nobody.
func TestValuesThatNobodyWrote(t *testing.T) {
	t.Parallel()
	p := &past{history{name: "k"}}
	p.set(100*ms, 110*ms)
	for name, change := range map[string]func(*value){
		"another key's":  func(v *value) { v.Key = "j" },
		"no number":      func(v *value) { v.N = -1 },
		"a torn one":     func(v *value) { v.Pad = v.Pad[1:] },
		"the zero value": func(v *value) { *v = value{} },
	} {
		r := read{start: sec, end: sec, own: -1, seen: -1, bound: 4 * sec, found: true, value: p.value(0)}
		if v := p.judge(r); v.violation != nil {
			t.Fatal(v.violation)
		}
		change(&r.value)
		if v := p.judge(r); v.violation == nil || v.violation.promise != "P7" {
			t.Errorf("%s: %v", name, v.violation)
		}
	}
}
