//go:build unix && !solaris && !aix

package pgserver

import (
	"context"
	"fmt"
	"io"
	"os/exec"
)

// watchScript waits for its input to end, which happens when we end, in whatever way: killed -9 too, since the kernel
// closes our end of the pipe. Lines say which process runs meanwhile. The last one named is stopped (QUIT is Postgres'
// immediate shutdown), then the folder goes.
const watchScript = `trap '' HUP INT TERM
while read -r line; do pid=$line; done
i=0
if [ -n "$pid" ]; then
	kill -s QUIT "$pid"
	while kill -s 0 "$pid" && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.1; done
	kill -s KILL "$pid"
fi
until rm -rf "$1" || [ $i -ge 150 ]; do i=$((i + 1)); sleep 0.1; done`

// watchdog is a small process beside us that cleans up if we cannot.
type watchdog struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

func startWatchdog(a account, folder string) (*watchdog, error) {
	cmd := a.command(context.Background(), "/", "/bin/sh", "-c", watchScript, "pgcache-watchdog", folder)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := a.start(cmd); err != nil {
		return nil, fmt.Errorf("starting the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, input: input}, nil
}

// runs names the process to be stopped.
func (w *watchdog) runs(pid int) { fmt.Fprintln(w.input, pid) }

// rests says that there is none: a pid that was waited for may belong to somebody else by now.
func (w *watchdog) rests() { fmt.Fprintln(w.input) }

// close lets the watchdog do its work, and waits for it.
func (w *watchdog) close() {
	w.input.Close()
	_ = w.cmd.Wait() // its exit code says nothing that matters here
}
