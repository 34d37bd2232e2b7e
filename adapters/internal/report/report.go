// Package report is for adapters of interfaces whose methods return no error.
package report

import "log/slog"

// Error gives err, if there is one, to onError, or else to the log.
func Error(onError func(error), err error) {
	switch {
	case err == nil:
	case onError != nil:
		onError(err)
	default:
		slog.Default().Warn("the cache can't be used", "error", err)
	}
}
