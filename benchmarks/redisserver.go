package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer is a Redis or Valkey that answered.
type redisServer struct {
	addr    string
	source  string // "PGCACHE_REDIS", or the path of its binary
	version string // "redis 7.0.15"

	process *exec.Cmd // nil: somebody else's
	lifeline,
	log io.Closer
	folder string
}

func (r *redisServer) own() bool { return r.process != nil }

// startRedis returns the server that PGCACHE_REDIS names, or one started from a binary on the PATH, or nil if there is
// neither.
func startRedis(ctx context.Context, say func(format string, args ...any)) (*redisServer, error) {
	if addr := os.Getenv(envRedis); addr != "" {
		r := &redisServer{addr: addr, source: envRedis}
		if err := r.ask(ctx); err != nil {
			return nil, fmt.Errorf("the server that %s names does not answer: %w", envRedis, err)
		}
		say("using the %s that %s names", r.version, envRedis)
		return r, nil
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		r, err := runRedis(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", path, err)
		}
		say("started %s from %s", r.version, path)
		return r, nil
	}
	say("no Redis: %s is not set, and neither redis-server nor valkey-server is on the PATH; its columns will say \"not run\"", envRedis)
	return nil, nil
}

// withLifeline runs a command until its own input ends, which is when the process at the other end closes it or dies,
// however it dies.
const withLifeline = `trap '' INT; "$@" & cat >/dev/null; kill -9 $!; wait`

// runRedis starts a server that keeps nothing on disk, as Redis does for a cache.
func runRedis(ctx context.Context, binary string) (*redisServer, error) {
	folder, err := os.MkdirTemp("", "pgcache-bench-redis-")
	if err != nil {
		return nil, err
	}
	logPath := folder + "/log"
	log, err := os.Create(logPath)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	var last error
	for range 20 { // a port that is free now may be taken a moment later
		r := &redisServer{addr: freeAddr(), source: binary, folder: folder, log: log}
		_, port, _ := net.SplitHostPort(r.addr)
		// Not with ctx: after Ctrl-C the fleet still wants to close in order.
		r.process = exec.Command("/bin/sh", "-c", withLifeline, "sh", binary, //nolint:noctx // ends with its lifeline
			"--bind", "127.0.0.1", "--port", port, "--dir", folder, "--save", "", "--appendonly", "no")
		r.process.Stdout, r.process.Stderr = log, log
		if r.lifeline, err = r.process.StdinPipe(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(folder))
		}
		if err := r.process.Start(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(folder))
		}
		if last = r.ready(ctx); last == nil {
			return r, nil
		}
		r.lifeline.Close()
		_ = r.process.Wait()
		if ctx.Err() != nil || !taken(logPath) {
			break
		}
	}
	said, _ := os.ReadFile(logPath)
	log.Close()
	return nil, errors.Join(fmt.Errorf("%w; its log says:\n%s", last, said), os.RemoveAll(folder))
}

func freeAddr() string { return fmt.Sprint("127.0.0.1:", 20000+rand.IntN(12000)) }

func taken(logPath string) bool {
	said, _ := os.ReadFile(logPath)
	return strings.Contains(string(said), "Address already in use")
}

// ready waits until the server answers. One that found its port taken has ended by then, and what answers is not ours:
// so it is asked which folder it works in.
func (r *redisServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := r.ask(ctx)
		if err == nil || ctx.Err() != nil || taken(r.folder+"/log") {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // there is no signal for it
		}
	}
}

// ask learns the version, and of a server of ours whether it is the one that was started.
func (r *redisServer) ask(ctx context.Context) error {
	client := newGoRedis(r.addr, 1)
	defer client.Close()
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	r.version = redisVersion(info)
	if r.own() {
		dir, err := client.ConfigGet(ctx, "dir").Result()
		if err != nil {
			return err
		}
		if dir["dir"] != r.folder {
			return errors.New("another server answers on the port: Address already in use")
		}
	}
	return nil
}

// redisVersion reads INFO. Valkey says which Redis it is compatible with, too.
func redisVersion(info string) string {
	values := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			values[name] = value
		}
	}
	if v := values["valkey_version"]; v != "" {
		return "valkey " + v
	}
	return "redis " + values["redis_version"]
}

func (r *redisServer) close() error {
	if !r.own() {
		return nil
	}
	r.lifeline.Close()
	_ = r.process.Wait() // it was killed
	r.log.Close()
	return os.RemoveAll(r.folder)
}

// quiet keeps go-redis from writing to stderr by itself: what matters comes back as an error.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(quiet{}) }
