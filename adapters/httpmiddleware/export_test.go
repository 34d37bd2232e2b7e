package httpmiddleware

import "net/http"

// Wait waits until what the requests so far have brought is stored.
func Wait(h http.Handler) { h.(*middleware).stores.Wait() }
