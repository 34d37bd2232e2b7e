package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress shows how far a run is: a bar on a terminal, a line every few seconds elsewhere. It is safe for concurrent
// use.
type progress struct {
	out      io.Writer
	terminal bool
	total    time.Duration // about, of all steps
	shapes   []string      // and of each shape, in words

	mu      sync.Mutex
	done    time.Duration // of total, by the steps that have ended
	current time.Duration // what the step under way takes
	what    string
	begun   time.Time
	shown   time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// expect says how long a shape will take, before start.
func (p *progress) expect(shape string, takes time.Duration) {
	p.total += takes
	p.shapes = append(p.shapes, fmt.Sprintf("%s %v", shape, takes.Round(time.Second)))
}

func (p *progress) start() {
	p.begun = time.Now()
	p.say("about %v to go: %s", p.total.Round(time.Second), strings.Join(p.shapes, ", "))
}

// begin ends the step before and begins one.
func (p *progress) begin(what string, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += p.current
	p.current, p.what = takes, what
	p.show(0)
}

// part says how much of the current step is done, for long ones.
func (p *progress) part(share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.show(share)
}

func (p *progress) show(share float64) {
	if !p.terminal && time.Since(p.shown) < 5*time.Second {
		return
	}
	p.shown = time.Now()
	whole := min(1, (float64(p.done)+share*float64(p.current))/float64(max(p.total, 1)))
	line := fmt.Sprintf("%3.0f %%  %v  %s", 100*whole, time.Since(p.begun).Round(time.Second), p.what)
	if p.terminal {
		const cells = 24
		full := int(whole * cells)
		fmt.Fprintf(p.out, "\r[%s%s] %s\x1b[K", strings.Repeat("#", full), strings.Repeat(".", cells-full), line)
	} else {
		fmt.Fprintln(p.out, line)
	}
}

// say prints a line of its own.
func (p *progress) say(format string, args ...any) {
	fmt.Fprintln(p, fmt.Sprintf(format, args...))
}

// Write is for loggers: each call is whole lines.
func (p *progress) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.out.Write(line)
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
