package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	mavenCentral  = "https://repo1.maven.org/maven2"
	fetchVersion  = embeddedpostgres.V18
	reachLimit    = 10 * time.Second // for the repository to answer at all
	downloadLimit = 2 * time.Minute  // some 30 MB
)

// repository is where binaries can be downloaded, and where they are kept afterwards.
type repository struct {
	url   string
	cache func() (string, error)
}

// fetch returns the folder of binaries that were downloaded now or earlier.
func (r repository) fetch(ctx context.Context, say logf) (string, error) {
	if err := canRun(); err != nil {
		return "", err
	}
	cache, err := r.cache()
	if err != nil {
		return "", fmt.Errorf("no folder to keep it in: %w", err)
	}
	kept := filepath.Join(cache, "postgres-"+string(fetchVersion))
	bin := filepath.Join(kept, "bin")
	if usable(ctx, bin) == nil {
		return bin, nil
	}
	defer http.DefaultClient.CloseIdleConnections() // the library's too
	if err := r.reach(ctx); err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("no folder to keep it in: %w", err)
	}
	unlock, err := lockFolder(ctx, cache) // the test binaries of a whole module may get here together: one downloads
	if err != nil {
		return "", err
	}
	defer unlock()
	if usable(ctx, bin) == nil {
		return bin, nil
	}

	say("pgcache: downloading PostgreSQL %s into %s, once", fetchVersion, kept)
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	fetched := filepath.Join(work, "postgres")
	if err := r.download(ctx, work, fetched); err != nil {
		return "", err
	}
	// Complete or not there at all: nobody ever finds half of a server in kept.
	if err := errors.Join(os.RemoveAll(kept), os.Rename(fetched, kept)); err != nil {
		return "", err
	}
	return bin, usable(ctx, bin)
}

// reach reports within seconds that the repository can't be reached. The library itself would wait for as long as the
// operating system does, and not say why.
func (r repository) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, reachLimit, fmt.Errorf("no answer within %v", reachLimit))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, r.url+"/", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s answers %q", r.url, response.Status)
	}
	return nil
}

// download puts the binaries into the folder fetched.
func (r repository) download(ctx context.Context, work, fetched string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, downloadLimit, fmt.Errorf("not done after %v", downloadLimit))
	defer cancel()
	// The library cannot only fetch: its Start downloads, unpacks, runs initdb, and starts a server that nobody would
	// stop if we are killed. An encoding that does not exist ends it at initdb, with the binaries in place.
	library := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(fetchVersion).
		BinaryRepositoryURL(r.url).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(fetched).
		RuntimePath(filepath.Join(work, "run")).
		Port(0). // it insists on finding its port free
		Encoding("binaries-only").
		Logger(io.Discard))
	ended := make(chan error, 1)
	go func() { ended <- library.Start() }() // it knows no context
	select {
	case err := <-ended:
		if _, missing := os.Stat(filepath.Join(fetched, "bin", "initdb")); missing != nil {
			return fmt.Errorf("%s: %w", r.url, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", r.url, context.Cause(ctx))
	}
}
