package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/pgcache/go/pgcache"
)

// This file has what workers do with keys that belong to groups.

func tagsOf(h *history) pgcache.Option {
	return pgcache.Tags(teamTag(h.team), "some")
}

func teamTag(team int) string { return fmt.Sprint("team:", team) }

// ownsMore says whether this worker alone writes a grouped key.
func (w *worker) ownsMore(key int) bool { return w.first && w.owner(2*key) == w.id }

// setGrouped stores a value with tags in one of the ways that there are.
func (w *worker) setGrouped(ctx context.Context, key int) {
	h := w.keys[key]
	if rand.N(8) == 0 {
		// The value stays, and so does its team.
		if _, err := w.typed.Touch(ctx, h.name, pgcache.NoExpiry); err != nil {
			w.book.fail(err)
		}
		w.activity.touched.Add(1)
		return
	}
	n := h.begin(w.id, false, 0)
	v := h.valueOf(n)
	never := pgcache.TTL(pgcache.NoExpiry)
	switch rand.N(5) {
	case 0:
		w.write([]int{key}, []int{n}, func() error {
			_, err := w.typed.Update(ctx, h.name, func(value, bool) (value, error) { return v, nil }, never, tagsOf(h))
			return err
		})
	case 1:
		w.tryAbsent(ctx, key, n, tagsOf(h))
	case 2:
		w.write([]int{key}, []int{n}, func() error {
			return w.typed.SetMany(ctx, map[string]value{h.name: v}, never, tagsOf(h))
		})
	default:
		w.write([]int{key}, []int{n}, func() error { return w.cache.Set(ctx, h.name, v, never, tagsOf(h)) })
	}
}

// removeTeam removes all keys of a team, which is a Delete of each.
func (w *worker) removeTeam(ctx context.Context, team int) {
	keys := w.of(grouped, func(k int) bool { return w.keys[k].team == team })
	if w.restingTeam(team) {
		return
	}
	numbers := make([]int, len(keys))
	for i, k := range keys {
		numbers[i] = w.keys[k].begin(w.id, true, 0)
	}
	w.write(keys, numbers, func() error {
		if rand.N(2) == 0 {
			return w.cache.DeletePrefix(ctx, fmt.Sprintf("team%d:", team))
		}
		return w.cache.DeleteTags(ctx, teamTag(team), "nobody's")
	})
	w.activity.removals.Add(1)
	w.getTeam(ctx, team)
}

func (w *worker) restingTeam(team int) bool {
	return slices.ContainsFunc(w.of(grouped, nil), func(k int) bool { return w.keys[k].team == team && w.resting(k) })
}

func (w *worker) getTeam(ctx context.Context, team int) {
	keys := w.of(grouped, func(k int) bool { return w.keys[k].team == team })
	w.read("GetMany", keys, func() (map[int]value, error) {
		byName, names := w.named(keys, func(name string) string { return name })
		found, err := w.typed.GetMany(ctx, names)
		return byKey(found, byName), err
	})
}
