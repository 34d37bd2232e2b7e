//go:build unix && !solaris && !aix

package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// canRun says why this operating system cannot run a throw-away cluster.
func canRun() error { return nil }

// stopLimit is how long a server may take to stop before it is killed. An immediate shutdown gives its own children 5 s.
const stopLimit = 10 * time.Second

// throwAway are the settings of a server whose data nobody wants to keep.
var throwAway = map[string]string{
	"fsync":            "off",
	"full_page_writes": "off",
	"max_connections":  "500",
	"shared_buffers":   "64MB",
	"min_wal_size":     "16MB", // a quickstart should not fill anybody's disk
	"max_wal_size":     "64MB",
	"timezone":         "UTC",
	"log_timezone":     "UTC",
	"log_checkpoints":  "off",
	"cluster_name":     "pgcache",
}

// cluster is a data folder and the server that runs on it.
type cluster struct {
	bin    string // the folder of the binaries
	folder string // holds data and log
	acc    account
	log    *os.File
	watch  *watchdog
	port   int

	mu     sync.Mutex
	server *exec.Cmd
	ended  chan struct{} // closed when server has ended
	closed bool
}

// startCluster makes a cluster from the binaries in bin and starts its server.
func startCluster(ctx context.Context, bin string, settings map[string]string) (*Server, error) {
	return newCluster(ctx, bin, settings, anyPort)
}

func newCluster(ctx context.Context, bin string, settings map[string]string, nextPort func() int) (_ *Server, err error) {
	conf, err := confLines(settings)
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin}
	if c.acc, err = serverAccount(); err != nil {
		return nil, err
	}
	if c.folder, err = c.acc.newFolder(); err != nil {
		return nil, err
	}
	if c.watch, err = startWatchdog(c.acc, c.folder); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.folder))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.log, err = os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	if err := c.init(ctx); err != nil {
		return nil, c.withLog(err)
	}
	if err := c.configure(conf); err != nil {
		return nil, err
	}

	// A port that is free now may be taken a moment later, for instance by another test binary that is starting too.
	for range 20 {
		c.port = nextPort()
		if err = c.run(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s := &Server{DSN: c.dsn(), Source: "binaries in " + bin, own: c}
	if s.Version, _, err = ask(ctx, s.DSN); err != nil {
		return nil, c.withLog(err)
	}
	return s, nil
}

func (c *cluster) dsn() string {
	return fmt.Sprintf("postgres://pgcache@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

func (c *cluster) data() string    { return filepath.Join(c.folder, "data") }
func (c *cluster) logPath() string { return filepath.Join(c.folder, "log") }

// init runs initdb.
func (c *cluster) init(ctx context.Context) error {
	cmd := c.command(ctx, "initdb", "-D", c.data(), "-U", "pgcache", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
		"--no-instructions", "--wal-segsize=4")
	if err := c.acc.start(cmd); err != nil {
		return err
	}
	c.watch.runs(cmd.Process.Pid)
	defer c.watch.rests()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("initdb: %w", cause(ctx, err))
	}
	return c.log.Truncate(0) // from here on the log is the server's
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// confLines returns the settings as lines of postgresql.conf.
func confLines(settings map[string]string) (string, error) {
	all := maps.Clone(throwAway)
	maps.Copy(all, settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !settingName.MatchString(name) || strings.ContainsAny(all[name], "\n\r\x00") {
			return "", fmt.Errorf("setting %q = %q: postgresql.conf cannot hold it", name, all[name])
		}
		value := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(all[name])
		fmt.Fprintf(&conf, "%s = '%s'\n", name, value)
	}
	return conf.String(), nil
}

// configure appends to postgresql.conf. On the command line the settings would outrank ALTER SYSTEM.
func (c *cluster) configure(conf string) error {
	file, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(conf)
	return errors.Join(err, file.Close())
}

var errPortTaken = errors.New("port is taken")

// run starts the server on c.port and returns when it is ready.
func (c *cluster) run(ctx context.Context) error {
	logStart, err := c.log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := c.command(context.Background(), "postgres", "-D", c.data(), "-p", strconv.Itoa(c.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=")
	if err := c.acc.start(cmd); err != nil {
		return err
	}
	c.watch.runs(cmd.Process.Pid)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // kept in cmd.ProcessState
		c.watch.rests()
		close(ended)
	}()
	c.server, c.ended = cmd, ended

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !c.ready() {
		select {
		case <-tick.C:
		case <-ended:
			if bytes.Contains(c.logFrom(logStart), []byte("could not bind")) {
				return fmt.Errorf("port %d: %w", c.port, errPortTaken)
			}
			return c.withLog(fmt.Errorf("the server ended: %v", cmd.ProcessState))
		case <-ctx.Done():
			err := c.withLog(context.Cause(ctx))
			return errors.Join(err, c.stop(syscall.SIGQUIT))
		}
	}
	return nil
}

// ready looks where pg_ctl looks. To connect would not do: another server may have been faster to take the port.
func (c *cluster) ready() bool {
	content, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	lines := strings.Split(string(content), "\n")
	return err == nil && len(lines) > 7 && lines[0] == strconv.Itoa(c.server.Process.Pid) &&
		strings.HasPrefix(lines[7], "ready")
}

// stop ends the server, if it runs, and waits until it is gone.
func (c *cluster) stop(how syscall.Signal) error {
	if c.server == nil {
		return nil
	}
	_ = c.server.Process.Signal(how) // fails if it has ended, which is as good
	select {
	case <-c.ended:
		return nil
	case <-time.After(stopLimit):
		err := c.withLog(fmt.Errorf("still running %v after signal %v, so it was killed", stopLimit, how))
		_ = c.server.Process.Kill()
		<-c.ended
		return err
	}
}

func (c *cluster) restart(ctx context.Context, mode string) error {
	signals := map[string]syscall.Signal{"fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	how, ok := signals[mode]
	if !ok {
		return fmt.Errorf("mode %q is neither fast nor immediate", mode)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errors.New("it is closed")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, initLimit, fmt.Errorf("not ready after %v", initLimit))
	defer cancel()
	if err := c.stop(how); err != nil {
		return err
	}
	return c.run(ctx)
}

func (c *cluster) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	err := c.stop(syscall.SIGQUIT)
	if c.log != nil {
		c.log.Close()
	}
	c.watch.close()
	return errors.Join(err, os.RemoveAll(c.folder)) // should the watchdog have been killed
}

func (c *cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := c.acc.command(ctx, c.folder, filepath.Join(c.bin, name), args...)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	return cmd
}

func (c *cluster) logFrom(offset int64) []byte {
	content, _ := os.ReadFile(c.logPath()) // an error about a missing log would only hide the real one
	return content[min(int(offset), len(content)):]
}

// withLog adds the last lines of the server's log to err: they say why.
func (c *cluster) withLog(err error) error {
	lines := strings.Split(strings.TrimSpace(string(c.logFrom(0))), "\n")
	return fmt.Errorf("%w; its log ends with:\n\t%s", err, strings.Join(lines[max(0, len(lines)-15):], "\n\t"))
}

// cause is the reason why ctx ended, if it has, and err otherwise.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// anyPort returns a port that was free just now. It is not one of those that the system deals out by itself (from 32768
// on Linux, 49152 elsewhere): while the server restarts, any outgoing connection could get such a port, and a client that
// reconnects in a loop could even be connected to itself.
func anyPort() int {
	var port int
	for range 100 {
		port = 20000 + rand.IntN(12000)
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			break
		}
	}
	return port
}
