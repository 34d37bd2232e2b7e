package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgcache/go/internal/store"
)

// eventJSON is an invalidation for programs.
type eventJSON struct {
	Time        time.Time `json:"time"`
	Key         string    `json:"key,omitempty"`
	Tag         string    `json:"tag,omitempty"`       // all entries with it
	Beginning   string    `json:"beginning,omitempty"` // all entries whose keys begin so
	All         bool      `json:"all,omitempty"`       // everything is forgotten
	Hidden      bool      `json:"hidden,omitempty"`    // key, or tag, is a hash
	Versions    []string  `json:"versions,omitempty"`
	LateMS      *float64  `json:"late_ms,omitempty"` // from the writing statement until here; absent: written again since
	Kind        string    `json:"kind"`              // flush, write, unknown, lost or listening
	Node        string    `json:"node,omitempty"`    // that flushed
	WindowMS    int64     `json:"window_ms,omitempty"`
	PID         uint32    `json:"pid,omitempty"` // of the server process that published
	Application string    `json:"application,omitempty"`
	Role        string    `json:"role,omitempty"`
	Address     string    `json:"address,omitempty"`
	Error       string    `json:"error,omitempty"`
	name        string    // of what is invalidated, for people
}

const (
	mostWaiting = 4096 // messages not shown yet; more are dropped, and counted
	mostAsked   = 100  // keys of a message whose rows are asked for
	mostKnown   = 256  // sessions that are remembered
	askTimeout  = 5 * time.Second
	clockEvery  = 30 * time.Second
)

func tailCommand(a *app) *cobra.Command {
	var count int
	var limit time.Duration
	c := &cobra.Command{
		Use:   "tail [BEGINNING]",
		Short: "Show invalidations as they are published",
		Long: `Show invalidations as they are published, of the keys that begin with BEGINNING, of tags, and of everything, until interrupted. It listens on the cache's
channel like a node, on a connection of its own.

LATE is from the writing statement until the message was here, by the database's clock; it is "-" if the row has been
written again since, or keys are hidden. WHO is the node that flushed the change log, with its window, or "write" for a
statement that published by itself; then the session that did.`,
		Example: "  pgcache tail user: --count 10\n  pgcache tail --json | jq -r .key",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if count < 0 || limit < 0 {
				return usageError{errors.New("--count and --for can't be negative")}
			}
			t, err := a.table(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			listening, cancel := context.WithCancel(c.Context())
			defer cancel()
			if limit > 0 {
				listening, cancel = context.WithTimeout(listening, limit)
				defer cancel()
			}
			f := &follower{a: a, t: t, left: count, sessions: map[uint32]store.Session{}}
			if len(args) == 1 {
				f.beginning = args[0]
			}
			return f.follow(c.Context(), listening, cancel)
		},
	}
	c.Flags().IntVarP(&count, "count", "n", 0, "end after so many lines; 0: never")
	c.Flags().DurationVar(&limit, "for", 0, "end after so long; 0: never")
	return c
}

// follower prints what is received.
type follower struct {
	a         *app
	t         *table
	beginning string
	left      int // lines until the end; 0: without end
	sessions  map[uint32]store.Session
	offset    time.Duration // of the database's clock
	asked     time.Time     // when the offset was measured
	headed    bool
}

// follow prints what is received until listening ends, which end brings about, and whatever has been received by then. ctx is that of the
// questions about it.
func (f *follower) follow(ctx, listening context.Context, end context.CancelFunc) error {
	f.measureClock(listening)
	messages := make(chan received, mostWaiting)
	listened := make(chan error, 1)
	dropped := make(chan struct{}, 1)
	go func() {
		listened <- listen(listening, f.t.config, f.t.Names.Channel, f.t.state.ID, func(h received) {
			select {
			case messages <- h:
			default:
				select {
				case dropped <- struct{}{}:
				default:
				}
			}
		})
	}()
	done, err := f.show(ctx, messages, dropped, listened)
	if done {
		end()
		<-listened //nolint:errcheck // it was ended, and that is no error
	}
	return err
}

// show prints messages until one was the last, or until listened says that no more come and those that have come are printed. dropped
// says that some could not be kept.
func (f *follower) show(ctx context.Context, messages <-chan received, dropped <-chan struct{}, listened <-chan error) (done bool, err error) {
	for over := false; !over || len(messages)+len(dropped) > 0; {
		select {
		case h := <-messages:
			if f.print(ctx, h, len(messages)) {
				return !over, err
			}
		case <-dropped:
			f.line(eventJSON{Time: time.Now(), Kind: "lost", Error: "more messages came than could be shown: some are missing"})
		case err = <-listened:
			over = true
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, askTimeout) // for the questions about all that is left
			defer cancel()
		}
	}
	return false, err
}

// measureClock compares the clocks. The answer that came soonest is the best.
func (f *follower) measureClock(ctx context.Context) {
	f.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	best := time.Hour
	for range 3 {
		sent := time.Now()
		figures, err := f.t.Figures(ctx)
		if took := time.Since(sent); err == nil && took < best {
			best, f.offset = took, time.UnixMicro(figures.NowUs).Sub(sent.Add(took/2))
		}
	}
}

// print prints the lines of a message, and says whether they were the last. behind is how many messages wait.
func (f *follower) print(ctx context.Context, h received, behind int) (done bool) {
	e := eventJSON{Time: h.at, Kind: "write", PID: h.pid, Hidden: h.message.Hidden}
	switch {
	case h.lost != nil:
		e.Kind, e.Error = "lost", f.a.scrub(shown(h.lost).Error())
		f.line(e)
		return false
	case h.live:
		e.Kind = "listening"
		f.line(e)
		return false
	case h.unknown:
		e.Kind = "unknown"
	case h.message.Flush:
		e.Kind, e.WindowMS = "flush", h.message.Window.Milliseconds()
		if h.message.Node != 0 {
			e.Node = fmt.Sprintf("%08x", h.message.Node)
		}
	}
	var items []item
	var ask []string
	h.items(func(i item) {
		if !i.concerns(f.beginning) {
			return
		}
		items = append(items, i)
		if i.key != "" {
			ask = append(ask, i.key)
		}
	}, func() { e.All = true })
	if len(items) == 0 && !e.All {
		return false
	}
	// The questions are for people who watch: where more comes than can be read, they are left out.
	var written map[string]store.WrittenAt
	if behind < mostWaiting/8 {
		f.who(ctx, &e)
		if len(ask) > 0 && len(ask) <= mostAsked && !e.Hidden {
			written = f.written(ctx, ask)
		}
	}
	if e.All {
		return f.line(e)
	}
	for _, i := range items {
		one := e
		one.Key, one.Tag, one.Beginning, one.name = i.key, i.tag, i.beginning, i.name(e.Hidden)
		for _, v := range i.versions {
			one.Versions = append(one.Versions, fmt.Sprintf("%016x", v))
		}
		if w, ok := written[i.key]; ok && i.key != "" && w.Version == i.versions[0] {
			late := milliseconds(max(0, h.at.Add(f.offset).Sub(w.At)))
			one.LateMS = &late
		}
		if f.line(one) {
			return true
		}
	}
	return false
}

func (f *follower) written(ctx context.Context, keys []string) map[string]store.WrittenAt {
	if time.Since(f.asked) > clockEvery {
		f.measureClock(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	written, err := f.t.WrittenAt(ctx, keys)
	if err != nil {
		return nil // it is said as "-"
	}
	return written
}

// who fills in whose session published.
func (f *follower) who(ctx context.Context, e *eventJSON) {
	s, ok := f.sessions[e.PID]
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		var err error
		if s, err = f.t.SessionOf(ctx, e.PID); err != nil {
			return
		}
		if len(f.sessions) >= mostKnown {
			clear(f.sessions)
		}
		f.sessions[e.PID] = s
	}
	e.Application, e.Role, e.Address = s.Application, s.Role, s.Address
}
