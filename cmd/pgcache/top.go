package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
)

func pow(base, exp float64) float64 { return math.Pow(base, exp) }

func topCommand(a *app) *cobra.Command {
	var every time.Duration
	var count int
	c := &cobra.Command{
		Use:   "top",
		Short: "Show figures live: sizes, rates, hot keys",
		Long: `Show figures live: sizes of the tables, writes and reads a second, how many updates are HOT, flushes and invalidations a
second, the notification queue, and the keys that are invalidated most. It listens on the cache's channel, and reads the
server's statistics once an interval, which costs it next to nothing; they lag behind by up to a second or so.

What nodes answer from their memory is not seen by the server: pgcacheui shows it, in the program itself.

With --json, or into a pipe, it prints one sample a line, and ends after --count of them.`,
		Example: "  pgcache top\n  pgcache top --json --count 1 | jq .rows",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if every < shortest {
				return usageError{errors.New("--interval must be at least 100ms")}
			}
			if count < 0 {
				return usageError{errors.New("--count can't be negative")}
			}
			t, err := a.table(c.Context())
			if err != nil {
				return err
			}
			defer t.close()
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			s := &sampler{t: t, hot: map[string]float64{}}
			listened := make(chan error, 1)
			up := make(chan struct{}, 1)
			go func() {
				listened <- listen(ctx, t.config, t.Names.Channel, t.state.ID, func(h received) {
					s.receive(h)
					if h.live {
						select {
						case up <- struct{}{}:
						default:
						}
					}
				})
			}()
			select {
			case <-up:
			case err := <-listened:
				return err
			}
			if a.global.json || !isTerminal(a.out) {
				err = a.samples(ctx, s, every, count)
			} else {
				m := newScreen(s, t.Names.Table(), every, a.global.timeout, a.colors())
				_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(a.out)).Run()
				if errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted) {
					err = nil
				}
			}
			if ctx.Err() != nil {
				err = nil // an interrupt ends it, also in the middle of a statement
			}
			cancel()
			return errors.Join(err, <-listened)
		},
	}
	c.Flags().DurationVar(&every, "interval", time.Second, "how often")
	c.Flags().IntVarP(&count, "count", "n", 0, "with --json or into a pipe: end after so many samples; 0: never")
	return c
}

// samples prints one sample an interval.
func (a *app) samples(ctx context.Context, s *sampler, every time.Duration, count int) error {
	if _, err := s.sample(ctx, a.global.timeout); err != nil { // the beginning of the first interval
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		one, err := s.sample(ctx, a.global.timeout)
		if err != nil {
			return err
		}
		if a.global.json {
			one.Time = one.Time.UTC()
			err = writeJSON(a.out, one)
		} else {
			_, err = fmt.Fprintf(a.out, "%s  rows %s  table %s  writes %s/s  reads %s/s  flushes %s/s  invalidations %s/s\n", one.Time.Format("15:04:05"),
				countText(one.Rows), bytesText(one.TotalBytes), rateText(one.Inserts+one.Updates), rateText(one.Reads), rateText(one.Flushes), rateText(one.Invalidations))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
