//go:build unix && !solaris && !aix

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that the server runs as. The zero value is the user that this process runs as.
type account struct {
	name string
	ids  *syscall.Credential
}

// serverAccount returns an unprivileged account if this process runs as root, as Postgres refuses to.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("ids of user %s: %w", name, err)
		}
		return account{name: name, ids: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("the server does not run as root, and there is no user postgres or nobody: try as an ordinary user")
}

// command prepares a program in a session of its own: Ctrl-C in a terminal goes to its whole process group, and a server
// that stops while the program that uses it is still tidying up would be one error more to explain. The end of ctx kills it.
func (a account) command(ctx context.Context, folder, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = folder // our own may be closed to the account
	cmd.Env = serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: a.ids}
	return cmd
}

// start starts cmd, and names the account in its error.
func (a account) start(cmd *exec.Cmd) error {
	err := cmd.Start()
	if err != nil && a.ids != nil {
		return fmt.Errorf("%w (as user %s, because Postgres does not run as root)", err, a.name)
	}
	return err
}

// output runs a program as the server's account and returns what it wrote.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	a, err := serverAccount()
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	cmd := a.command(ctx, "/", path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := a.start(cmd); err != nil {
		return nil, err
	}
	err = cmd.Wait()
	return []byte(out.String()), err
}

// serverEnv is our environment without what would configure a server or its language behind our back.
func serverEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "PG") && !strings.HasPrefix(pair, "LC_") && !strings.HasPrefix(pair, "LANG") {
			env = append(env, pair)
		}
	}
	return env
}

// newFolder makes a folder that belongs to the account.
func (a account) newFolder() (string, error) {
	base := os.TempDir()
	if a.ids != nil && !openToAll(base) { // root may have a TMPDIR of its own that is closed to everybody else
		base = "/tmp"
	}
	folder, err := os.MkdirTemp(base, "pgcache-postgres-")
	if err != nil {
		return "", err
	}
	if a.ids != nil {
		if err := os.Chown(folder, int(a.ids.Uid), int(a.ids.Gid)); err != nil {
			return "", errors.Join(err, os.Remove(folder))
		}
	}
	return folder, nil
}

// openToAll says whether everybody may go to dir and make or remove files there.
func openToAll(dir string) bool {
	for need := os.FileMode(0o003); ; need = 0o001 {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&need != need {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}
