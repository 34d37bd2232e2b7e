package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// tableOf is the cache of a test as the commands see it.
func tableOf(t *testing.T) *table {
	t.Helper()
	dsn := pgcachetest.DSN(t)
	a := &app{in: strings.NewReader(""), out: io.Discard, errs: io.Discard, getenv: func(key string) string {
		if key == "PGCACHE_DSN" {
			return dsn
		}
		return ""
	}}
	if code := run(t.Context(), a, []string{"migrate", "up"}); code != exitOK {
		t.Fatalf("migrate: %d", code)
	}
	tab, err := a.table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.close)
	return tab
}

// lines is what a terminal's driver does with a line break where the input is none.
type lines struct{ io.Writer }

func (l lines) Write(b []byte) (int, error) {
	_, err := l.Writer.Write(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")))
	return len(b), err
}

// TestTopOnATerminal runs top in a terminal of 80 by 24, with real figures and messages.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	tab := tableOf(t)
	s := &sampler{t: tab, hot: map[string]float64{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up, listened := make(chan struct{}), make(chan error, 1)
	go func() {
		listened <- listen(ctx, tab.config, tab.Names.Channel, tab.state.ID, func(h received) {
			s.receive(h)
			if h.live {
				close(up)
			}
		})
	}()
	<-up
	a := &app{global: globals{timeout: 10 * time.Second}}
	cache, err := a.cache(tab, pgcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()

	terminal := vt.NewSafeEmulator(80, 24)
	go io.Copy(io.Discard, terminal) // what it answers to questions about itself
	input, keys := io.Pipe()
	p := tea.NewProgram(newScreen(s, tab.Names.Table(), 250*time.Millisecond, 10*time.Second, true),
		tea.WithInput(input), tea.WithOutput(lines{terminal}), tea.WithWindowSize(80, 24), tea.WithContext(ctx), tea.WithEnvironment([]string{"TERM=xterm-256color"}))
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run()
		ended <- err
	}()
	shown := func() string {
		var lines []string
		for line := range strings.Lines(terminal.Render()) {
			lines = append(lines, strings.TrimRight(ansi.Strip(line), " \r\n"))
		}
		return strings.Join(lines, "\n")
	}
	deadline := time.Now().Add(time.Minute)
	for i := 0; ; i++ {
		if err := cache.Set(ctx, fmt.Sprint("product:", i%7), i); err != nil {
			t.Fatal(err)
		}
		if text := shown(); strings.Contains(text, "product:6") && strings.Contains(text, "HOT updates") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not shown:\n%s", shown())
		}
		time.Sleep(5 * time.Millisecond) // the pace of a writer
	}
	text := shown()
	t.Logf("\n%s", text)
	lines := strings.Split(text, "\n")
	if len(lines) > 24 || !strings.HasPrefix(lines[0], "pgcache top") || !strings.HasSuffix(lines[0], "every 250ms") || !strings.HasPrefix(lines[len(lines)-1], "q quit") ||
		!strings.Contains(text, "\nA SECOND                   NOW      MEAN  LAST 38 SAMPLES\nwrites ") || !strings.Contains(text, "\ninvalidations ") {
		t.Errorf("%d lines:\n%s", len(lines), text)
	}
	keys.Write([]byte("q"))
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-listened; err != nil {
		t.Error(err)
	}
}

// TestScreenFits: at any size no line is wider, and no more lines are drawn, than there is room for.
func TestScreenFits(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {10, 3}, {1, 1}} {
		m := newScreen(nil, `"app"."cache_entries"`, time.Second, time.Second, true)
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for i := range 100 {
			one := sample{Time: time.Unix(int64(i+1), 0), Database: "app", Server: "15.1 (Debian)", Rows: 123456789, Updates: float64(i), Hot: 0.97}
			for k := range 50 {
				one.HotKeys = append(one.HotKeys, hotKey{fmt.Sprint("a key of some length, with \x1b[31m in it ", k), 100})
			}
			m.Update(sampledMsg{sample: one})
		}
		text := m.draw()
		lines := strings.Split(text, "\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if w := ansi.StringWidth(line); w > size[0] {
				t.Errorf("%v: %d wide: %q", size, w, line)
			}
		}
		if strings.Contains(text, "with \x1b") {
			t.Errorf("%v: a key's control characters reach the terminal", size)
		}
		if len(m.past["writes"]) != remembered {
			t.Errorf("%d samples are kept", len(m.past["writes"]))
		}
	}
}

// TestNarrowScreen: at 60 by 20 nothing but the title is cut, and how to leave is said on any screen.
func TestNarrowScreen(t *testing.T) {
	t.Parallel()
	m := newScreen(nil, `"app"."cache_entries"`, time.Second, time.Second, false)
	for i := range 100 {
		m.Update(sampledMsg{sample: sample{
			Time: time.Unix(int64(i+1), 0), Database: "app", Server: "15.1 (Debian)", Rows: 123456, DeadRows: 12345, TotalBytes: 123 << 20, LogBytes: 12 << 20,
			Pending: 1000, Updates: 12345, HotKeys: []hotKey{{"user:1", 2}},
		}})
	}
	for _, size := range [][2]int{{60, 20}, {120, 40}, {80, 5}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		lines := strings.Split(m.draw(), "\n")
		if text := strings.Join(lines[1:], "\n"); strings.Contains(text, "…") || lines[len(lines)-1] != help {
			t.Errorf("%v:\n%s", size, text)
		}
		if text := strings.Join(lines, "\n"); size[1] >= 20 && !strings.Contains(text, "HOT updates -") {
			t.Errorf("%v: a ratio of no updates:\n%s", size, text)
		}
	}
}

// TestErrorOnScreen: the cause of an error is at its end, and is not cut off.
func TestErrorOnScreen(t *testing.T) {
	t.Parallel()
	m := newScreen(nil, `"app"."cache_entries"`, time.Second, time.Second, false)
	m.Update(sampledMsg{err: errors.New("failed to connect to `user=pgcache database=postgres`:\n\t127.0.0.1:25563 (127.0.0.1): dial error: dial tcp 127.0.0.1:25563: connect: connection refused\x1b[2J")})
	text := m.draw()
	if lines := strings.Split(text, "\n"); !strings.HasSuffix(lines[0], "no answer") || !strings.Contains(strings.Join(lines[1:4], " "), "connection refused") || strings.Contains(text, "\x1b") {
		t.Errorf("\n%s", text)
	}
}

// TestHotKeysAreBounded: however many keys there are, they are counted in bounded memory.
func TestHotKeysAreBounded(t *testing.T) {
	t.Parallel()
	s := &sampler{hot: map[string]float64{}}
	for i := range 2 * mostHot {
		var b []byte
		b = notify.AppendItem(b, fmt.Sprint("key ", i), 1)
		m, err := notify.Parse("200000000" + string(b))
		if err != nil {
			t.Fatal(err)
		}
		s.receive(received{message: m})
	}
	if len(s.hot) != mostHot || s.count.invalidations != 2*mostHot {
		t.Errorf("%d keys, %+v", len(s.hot), s.count)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for _, test := range [][2]string{
		{countText(1234567), "1,234,567"},
		{countText(-123), "-123"},
		{countText(999), "999"},
		{bytesText(0), "0 B"},
		{bytesText(1536), "1.5 kB"},
		{bytesText(300 << 20), "300 MB"},
		{spanText(1500 * time.Nanosecond), "1.5µs"},
		{spanText(-90 * time.Second), "1m30s"},
		{spanText(50 * time.Hour), "2d2h"},
		{printable("a\x1b[2Jb"), `"a\x1b[2Jb"`},
		{printable("grün"), "grün"},
		{fmt.Sprint(whoWidth(0), whoWidth(40), whoWidth(80), whoWidth(200)), "40 14 27 40"},
		{harmless([]byte("a\x1b[2J\u009bb\tü\n")), "a\\x1b[2J\\u009bb\tü\n"},
		{item{tag: "\x1b"}.name(true), "tag #\x1b"},
		{fmt.Sprint(item{beginning: "user:4"}.concerns("user:"), item{beginning: "u"}.concerns("user:"), item{beginning: "v"}.concerns("user:")), "true true false"},
		{sparkline([]float64{0, 1, 2, 4}, 3), "▃▅█"},
	} {
		if test[0] != test[1] {
			t.Errorf("%q, want %q", test[0], test[1])
		}
	}
	var b bytes.Buffer
	a := &app{out: &b, getenv: func(string) string { return "" }}
	a.grid([]string{"N", "KEY"}, "rl", [][]string{{"1", "ä"}, {"100", "b"}})
	if b.String() != "  N  KEY\n  1  ä\n100  b\n" {
		t.Errorf("%q", &b)
	}
}

// TestDemoHost: a page on a loopback address answers to its names alone.
func TestDemoHost(t *testing.T) {
	t.Parallel()
	page := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	local := onlyOwnHost(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, page)
	open := onlyOwnHost(&net.TCPAddr{IP: net.IPv4zero}, page)
	for host, code := range map[string]int{
		"127.0.0.1:8765": 200, "localhost:8765": 200, "[::1]:8765": 200, "localhost": 200, "evil.example:8765": 403, "": 403, "localhost.evil.example": 403, "10.0.0.1": 403,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w, all := httptest.NewRecorder(), httptest.NewRecorder()
		local.ServeHTTP(w, r)
		open.ServeHTTP(all, r)
		if w.Code != code || all.Code != 200 {
			t.Errorf("%q: %d, %d", host, w.Code, all.Code)
		}
	}
}
