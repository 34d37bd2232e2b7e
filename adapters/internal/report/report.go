// Package report is for adapters of interfaces whose methods return no error.
package report

import (
	"log/slog"
	"sync/atomic"
	"time"
)

var logged atomic.Int64 // when, in Unix seconds

// Error gives err, if there is one, to onError, or else to the log, once a second at most: a database that is down fails every call.
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
