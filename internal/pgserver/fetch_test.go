//go:build unix && !solaris && !aix

package pgserver

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// wrappers is a tar.xz with bin/initdb and bin/postgres, scripts that run the programs of that name in the folder that
// the variable POSTGRES_FOR_THE_WRAPPERS names.
const wrappers = `/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM4Cf/ALtdADEaShsFkZA3OlG9V3Gz1uQT2IkQonAbexNN15tic70r6rNJbkVqC6RLQH2665UL531xp7xGLwZ7
YXqWSm2ltDwKymOLnA4gPh5rCW+4RZdf7tz4j8qXKBN9qv6/LIw+V/dLiO+8OWRU6S5XK6fI24hTg9M9Nf1e286iRBFjLtNLKYVNBlc3p2lrRx4gj6T2
3BiC1PB6Pte/fau2WCLPMWzyfFLGmxMsiq5gJnG753HkVBPoiMZPNmfOGwAAAP1mxK4AAdMBgFAAAGcLeus+MA2LAgAAAAABWVo=`

// maven serves archive as what the library downloads, and counts how often.
func maven(t *testing.T, archive []byte) (url string, downloads *atomic.Int32) {
	t.Helper()
	var jar bytes.Buffer
	zipped := zip.NewWriter(&jar)
	entry, err := zipped.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	downloads = new(atomic.Int32)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodHead:
		case strings.HasSuffix(r.URL.Path, ".jar"):
			downloads.Add(1)
			_, _ = w.Write(jar.Bytes())
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, downloads
}

func TestDownloadedBinariesAreKeptAndRun(t *testing.T) {
	folders := binaryFolders(t.Context())
	if len(folders) == 0 {
		t.Fatal("needs server binaries on this machine, to offer them as a download")
	}
	t.Setenv("POSTGRES_FOR_THE_WRAPPERS", folders[0])
	t.Setenv("TMPDIR", publicDir(t)) // the library leaves a log file there
	archive, err := base64.StdEncoding.DecodeString(wrappers)
	if err != nil {
		t.Fatal(err)
	}
	url, downloads := maven(t, archive)
	cache := publicDir(t)
	r := repository{url: url, cache: func() (string, error) { return cache, nil }}

	// All packages of a module are tested at once, on a fresh machine: one download is enough.
	var fetches sync.WaitGroup
	for range 3 {
		fetches.Go(func() {
			if dir, err := r.fetch(t.Context(), t.Logf); err != nil || !strings.HasPrefix(dir, cache) {
				t.Errorf("got %q, %v", dir, err)
			}
		})
	}
	fetches.Wait()
	m := bare(nil)
	m.fetch = r.fetch
	s, err := m.start(t.Context(), Config{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := ask(t.Context(), s.DSN); err != nil {
		t.Error(err)
	}
	if got := downloads.Load(); got != 1 {
		t.Errorf("%d downloads, want 1", got)
	}
	if left := glob(t, cache, "fetch-*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDownloadFails(t *testing.T) {
	t.Setenv("TMPDIR", publicDir(t)) // the library leaves a log file there
	garbage, _ := maven(t, []byte("no archive"))
	answer := func(code int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead && code != http.StatusServiceUnavailable {
				return
			}
			w.WriteHeader(code)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for _, test := range []struct{ name, url, want string }{
		{"not reachable", "http://127.0.0.1:1", "refused"},
		{"out of order", answer(http.StatusServiceUnavailable), "503"},
		{"not there", answer(http.StatusNotFound), "no version found"},
		{"garbage", garbage, "unable to extract"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache := publicDir(t)
			r := repository{url: test.url, cache: func() (string, error) { return cache, nil }}
			_, err := r.fetch(t.Context(), t.Logf)
			if !strings.Contains(fmt.Sprint(err), test.want) || !strings.Contains(fmt.Sprint(err), test.url) {
				t.Errorf("got %v, want %q and %s", err, test.want, test.url)
			}
			if left := glob(t, cache, "*[^k]"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
