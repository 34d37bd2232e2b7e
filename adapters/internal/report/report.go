// Package report is for adapters of interfaces whose methods return no error.
package report

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// logged is when an error was logged last, in Unix seconds, by any adapter of this process.
var logged atomic.Int64

// Error gives err, if there is one, to onError; where that is nil, to slog.Default, once a second at most in this process: a database
// that is down fails every call. It is safe for concurrent use, if onError is.
func Error(onError func(error), err error) {
	if err == nil {
		return
	}
	if onError != nil {
		onError(err)
		return
	}
	if now := time.Now().Unix(); logged.Swap(now) != now {
		slog.Default().Warn("the cache can't be used", "error", err)
	}
}
