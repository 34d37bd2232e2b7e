//go:build unix && !solaris && !aix

package pgserver

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helperMode makes this test binary a program that uses the package: it starts a server and prints its DSN. At SIGINT it
// takes its time to tidy up, for which it needs its server, and says how that went. It ends when it is killed.
const helperMode = "PGSERVER_TEST_HELPER"

func helper() {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	s, err := StartWith(context.Background(), Config{Own: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.DSN)
	<-interrupts
	time.Sleep(200 * time.Millisecond) // enough for a server that got the signal too
	_, _, err = ask(context.Background(), s.DSN)
	fmt.Println("after the interrupt:", err)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
}

// program starts this test binary as helper, in a process group of its own, as a shell does.
func program(t *testing.T, tempDir string) (_ *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperMode+"=on", "TMPDIR="+tempDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

func TestProgramKilledWhileItsServerRuns(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	cmd, lines := program(t, dir)
	if !lines.Scan() {
		t.Fatal("the program ended")
	}
	if running := serversIn(t, dir); len(running) != 1 {
		t.Errorf("running: %q, want one server", running)
	}

	// What a terminal does with Ctrl-C: the signal goes to the whole process group. The server is not in it.
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if got, want := lines.Text(), "after the interrupt: <nil>"; got != want {
		t.Errorf("the program says %q, want %q", got, want)
	}

	kill(t, cmd, dir)
}

func TestProgramKilledDuringInitdb(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	cmd, _ := program(t, dir)
	waitFor(t, "initdb at work", func() bool { return len(glob(t, dir, "*/data/base/1/*")) > 0 })
	kill(t, cmd, dir)
}

// kill does to a program what it cannot see coming. Nothing may be left of its server.
func kill(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the folder", func() bool { return len(glob(t, dir, "*")) == 0 })
	// Servers went before their folder did, not because of it.
	if left := serversIn(t, dir); len(left) > 0 {
		t.Errorf("left running: %q", left)
	}
}

func glob(t *testing.T, parts ...string) []string {
	found, err := filepath.Glob(filepath.Join(parts...))
	if err != nil {
		t.Error(err)
	}
	return found
}

// waitFor polls: there is no signal for what other processes do.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// serversIn returns the command lines of what runs on a data folder below dir.
func serversIn(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, " -D "+dir) {
			found = append(found, line)
		}
	}
	return found
}
