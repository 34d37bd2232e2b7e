package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pgcache/go/pgcache"
)

// api is the service. It keeps one number under one key.
type api struct {
	cache   *pgcache.Cache
	numbers *pgcache.Typed[int]
	source  func(ctx context.Context) (int, error)
}

const (
	key     = "current"
	freshTo = 10 * time.Second
)

// newAPI returns the handler of GET /number, POST /number and GET /stats.
func newAPI(cache *pgcache.Cache, source func(ctx context.Context) (int, error)) http.Handler {
	a := &api{cache, pgcache.For[int](cache, pgcache.Namespace("number"), pgcache.TTL(freshTo)), source}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /number", a.get)
	mux.HandleFunc("POST /number", a.set)
	mux.HandleFunc("GET /stats", a.stats)
	return mux
}

type number struct {
	Number int `json:"number"`
}

func (a *api) get(w http.ResponseWriter, r *http.Request) {
	n, err := a.numbers.GetOrSet(r.Context(), key, a.source)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, number{n})
}

func (a *api) set(w http.ResponseWriter, r *http.Request) {
	n, err := posted(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := a.numbers.Set(r.Context(), key, n); err != nil {
		fail(w, err)
		return
	}
	reply(w, number{n})
}

// posted is the number in ?value= or in the body.
func posted(w http.ResponseWriter, r *http.Request) (int, error) {
	text := r.URL.Query().Get("value")
	if text == "" {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64))
		if err != nil {
			return 0, fmt.Errorf("read the body: %w", err)
		}
		text = strings.TrimSpace(string(body))
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("want a number, as ?value= or as the body: %w", err)
	}
	return n, nil
}

func (a *api) stats(w http.ResponseWriter, _ *http.Request) { reply(w, a.cache.Stats()) }

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print("httpapi: reply: ", err) // the client has gone
	}
}

// fail answers that it is the server's fault, and logs the cause.
func fail(w http.ResponseWriter, err error) {
	log.Print("httpapi: ", err)
	http.Error(w, "no number at the moment", http.StatusServiceUnavailable)
}
