package proof

import (
	"errors"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

type op = porcupine.Operation

// TestRegister: what the checker takes and what it refuses.
func TestRegister(t *testing.T) {
	write := func(v string, from, to int64) op {
		return op{Input: call{write: true, value: v}, Call: from, Return: to}
	}
	read := func(v string, from, to int64) op { return op{Input: call{}, Output: v, Call: from, Return: to} }
	for name, c := range map[string]struct {
		ops  []op
		fine bool
	}{
		"reads follow writes":                      {[]op{write("1", 0, 1), read("1", 2, 3), write("2", 4, 5), read("2", 6, 7)}, true},
		"a read beside a write sees old or new":    {[]op{write("1", 0, 1), write("2", 2, 9), read("1", 3, 4), read("2", 5, 6)}, true},
		"but never the old one behind the new one": {[]op{write("1", 0, 1), write("2", 2, 9), read("2", 3, 4), read("1", 5, 6)}, false},
		"a stale read":                             {[]op{write("1", 0, 1), write("2", 2, 3), read("1", 4, 5)}, false},
		"a value that came back after a delete":    {[]op{write("1", 0, 1), write(absent, 2, 3), read("1", 4, 5)}, false},
		"a lost write":                             {[]op{write("1", 0, 1), read(absent, 2, 3)}, false},
		"a write of unknown outcome came late":     {[]op{write("1", 0, never), read(absent, 2, 3), read("1", 4, 5)}, true},
		"and does not come twice":                  {[]op{write("1", 0, never), read("1", 2, 3), write("2", 4, 5), read("1", 6, 7)}, false},
	} {
		if got := porcupine.CheckOperations(register, c.ops); got != c.fine {
			t.Errorf("%s: linearizable is %v", name, got)
		}
	}
}

// TestOpenEnded: a write that failed may come later, a read that failed says nothing.
func TestOpenEnded(t *testing.T) {
	h := newHistory()
	failed := errors.New("connection lost")
	h.did(1, "k", call{write: true, value: "1"}, "", h.now(), failed)
	h.did(1, "k", call{}, "nonsense", h.now(), failed)
	h.did(1, "k", call{}, absent, h.now(), nil)
	h.did(1, "k", call{}, "1", h.now(), nil)
	if broken, unknown := h.check(time.Second); len(broken)+len(unknown) > 0 || len(h.keys["k"]) != 3 {
		t.Error(broken, unknown, h.keys)
	}
	h.did(1, "k", call{}, absent, h.now(), nil)
	if broken, _ := h.check(time.Second); len(broken) != 1 {
		t.Error("a value that was read has gone, and it is not noticed")
	}
}
