package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// screen is top on a terminal.
type screen struct {
	s              *sampler
	table          string
	every, timeout time.Duration
	colors         bool
	paused         bool
	width, height  int
	now            sample
	err            error // of the last sample
	past           map[string][]float64
	scroll         int // hot keys above the first that is shown
}

const (
	remembered = 60 // samples
	shortest   = 100 * time.Millisecond
	help       = "q quit  p pause  + slower  - faster  up, down: scroll"
)

func newScreen(s *sampler, table string, every, timeout time.Duration, colors bool) *screen {
	return &screen{s: s, table: table, every: every, timeout: timeout, colors: colors, width: 80, height: 24, past: map[string][]float64{}}
}

type (
	tickMsg    struct{}
	sampledMsg struct {
		sample sample
		err    error
	}
)

// Init takes the first sample, which begins the first interval.
func (m *screen) Init() tea.Cmd { return m.take }

func (m *screen) take() tea.Msg {
	one, err := m.s.sample(context.Background(), m.timeout)
	return sampledMsg{one, err}
}

// Update reacts to keys, ticks and samples.
func (m *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case "p", "space":
			m.paused = !m.paused
		case "+", "=":
			m.every = min(2*m.every, time.Minute)
		case "-":
			m.every = max(m.every/2, shortest)
		case "down", "j":
			m.scroll = min(m.scroll+1, max(0, len(m.now.HotKeys)-1))
		case "up", "k":
			m.scroll = max(m.scroll-1, 0)
		}
	case tickMsg:
		return m, m.take
	case sampledMsg:
		m.err = msg.err
		if msg.err == nil && !m.paused {
			if !m.now.Time.IsZero() { // the first has no rates yet
				for name, v := range msg.sample.rates() {
					m.past[name] = append(m.past[name], v)
					m.past[name] = m.past[name][max(0, len(m.past[name])-remembered):]
				}
			}
			m.now = msg.sample
		}
		return m, tea.Tick(m.every, func(time.Time) tea.Msg { return tickMsg{} })
	}
	return m, nil
}

func (s sample) rates() map[string]float64 {
	return map[string]float64{
		"writes": s.Inserts + s.Updates, "reads": s.Reads, "deletes": s.Deletes,
		"flushes": s.Flushes, "published": s.Published, "invalidations": s.Invalidations,
	}
}

// View draws.
func (m *screen) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "pgcache top"
	return v
}

// draw fills the screen exactly.
func (m *screen) draw() string {
	s, n := style(m.colors), m.now
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

	where := fmt.Sprintf("%s in %s, PostgreSQL %s", m.table, printable(n.Database), firstWord(n.Server))
	if n.Time.IsZero() {
		where = m.table
	}
	right := "every " + m.every.String()
	switch {
	case m.paused:
		right = "paused"
	case m.err != nil:
		right = "no answer"
	}
	head := ansi.Truncate("pgcache top  "+where, max(0, m.width-len(right)-2), "…")
	add("%s", s.in("7", head+strings.Repeat(" ", max(1, m.width-ansi.StringWidth(head)-len(right)))+right))
	trouble := ""
	switch {
	case m.err != nil:
		trouble = shown(m.err).Error()
	case n.Listener != "":
		trouble = "not listening: " + n.Listener
	}
	// The cause stands at the end of an error, so it is wrapped, not cut; a driver's may be of several lines.
	trouble = ansi.Wrap(printable(strings.Join(strings.Fields(trouble), " ")), max(1, m.width), "")
	for i, line := range strings.Split(trouble, "\n") {
		if i < 4 {
			add("%s", s.red(line))
		}
	}
	hot, queue := s.green, s.green
	if n.Hot < 0.9 {
		hot = s.yellow
	}
	if n.Queue > 0.5 {
		queue = s.red
	}
	hotText := hot(fmt.Sprintf("%.1f %%", 100*n.Hot))
	if n.Updated == 0 {
		hotText = "-"
	}
	lines = append(lines, flow(m.width,
		fmt.Sprintf("%s %s live, %s dead", s.dim("rows"), s.bold(countText(n.Rows)), countText(n.DeadRows)),
		fmt.Sprintf("%s %s", s.dim("table"), s.bold(bytesText(n.TotalBytes))),
		fmt.Sprintf("%s %s, %s pending", s.dim("change log"), bytesText(n.LogBytes), pendingText(n.Pending)),
		fmt.Sprintf("%s %s", s.dim("HOT updates"), hotText),
		fmt.Sprintf("%s %s", s.dim("notification queue"), queue(fmt.Sprintf("%.2f %%", 100*n.Queue))),
		fmt.Sprintf("%s %s", s.dim("notices"), bytesText(n.NoticesBytes)))...)
	add("")
	history := max(0, min(remembered, m.width-42))
	heading := fmt.Sprintf("%-20s %9s %9s", "A SECOND", "NOW", "MEAN")
	if history > 0 {
		heading += fmt.Sprintf("  LAST %d SAMPLES", history)
	}
	add("%s", s.dim(heading))
	now := n.rates()
	for _, row := range [][2]string{
		{"writes", "writes"},
		{"deletes", "rows removed"},
		{"reads", "reads of the index"},
		{"flushes", "flushes"},
		{"published", "published by a write"},
		{"invalidations", "invalidations"},
	} {
		past := m.past[row[0]]
		past = past[max(0, len(past)-max(history, 1)):]
		line := fmt.Sprintf("%-20s %s %9s", row[1], s.bold(fmt.Sprintf("%9s", rateText(now[row[0]]))), rateText(mean(past)))
		if history > 0 {
			line += "  " + s.cyan(sparkline(past, history))
		}
		add("%s", line)
	}
	add("")
	add("%s", s.dim(fmt.Sprintf("%10s  %s", "A SECOND", "KEYS INVALIDATED MOST, THE LAST TEN SECONDS")))
	room := m.height - len(lines) - 1
	keys := n.HotKeys[min(m.scroll, len(n.HotKeys)):]
	for i := range max(0, room) {
		switch {
		case i < len(keys):
			add("%10s  %s", rateText(keys[i].Rate), printable(keys[i].Key))
		case i == 0:
			add("%10s  %s", "", s.dim("none"))
		default:
			add("")
		}
	}
	lines = append(lines[:max(0, min(len(lines), m.height-1))], s.dim(help)) // however low the screen
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "…")
	}
	return strings.Join(lines, "\n")
}

// flow puts parts side by side, on as many lines as they need.
func flow(width int, parts ...string) (lines []string) {
	for _, part := range parts {
		last := len(lines) - 1
		if last >= 0 && ansi.StringWidth(lines[last]+part)+3 <= width {
			lines[last] += "   " + part
		} else {
			lines = append(lines, part)
		}
	}
	return lines
}

func pendingText(n int64) string {
	if n >= 1000 {
		return "1,000 or more"
	}
	return countText(n)
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}

// sparkline draws the newest values that fit, the largest at full height.
func sparkline(v []float64, width int) string {
	v = v[max(0, len(v)-max(0, width)):]
	most := 0.0
	for _, x := range v {
		most = max(most, x)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	out := make([]rune, len(v))
	for i, x := range v {
		switch {
		case x <= 0:
			out[i] = ' '
		default:
			out[i] = bars[min(len(bars)-1, int(x/most*float64(len(bars))))]
		}
	}
	return string(out)
}
