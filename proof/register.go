package proof

import (
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// absent is the value of a key without an entry.
const absent = ""

// call is what a client asked for.
type call struct {
	write bool
	value string // of a write; absent deletes
}

// register is the model of one key: it holds the value written last.
var register = porcupine.Model{
	Init: func() any { return absent },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(call); in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string {
		switch in := input.(call); {
		case !in.write:
			return fmt.Sprintf("read %q", output)
		case in.value == absent:
			return "delete"
		default:
			return fmt.Sprintf("write %q", in.value)
		}
	},
}

// history is what happened to each key.
type history struct {
	began time.Time
	mu    sync.Mutex
	keys  map[string][]porcupine.Operation
	open  int // writes that may happen at any time
}

func newHistory() *history {
	return &history{began: time.Now(), keys: map[string][]porcupine.Operation{}}
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

// never is after everything.
const never = int64(1) << 62

// did records an operation that was called at from and has just returned. A read that failed says nothing. A write that
// failed may have happened, may still happen, or never: its interval has no end, and an operation at the very end of a
// history is seen by no read.
func (h *history) did(client int, key string, in call, out string, from int64, err error) {
	to := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		if !in.write {
			return
		}
		to = never
		h.open++
	}
	h.keys[key] = append(h.keys[key], porcupine.Operation{ClientId: client, Input: in, Call: from, Output: out, Return: to})
}

// check returns the keys that are not linearizable, and those on which the checker ran out of time.
func (h *history) check(limit time.Duration) (broken, unknown []string) {
	for key, ops := range h.keys {
		switch porcupine.CheckOperationsTimeout(register, ops, limit) {
		case porcupine.Illegal:
			broken = append(broken, key)
		case porcupine.Unknown:
			unknown = append(unknown, key)
		}
	}
	return broken, unknown
}
