package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"
)

var errNoDocker = errors.New("the Docker daemon does not answer")

// pool is the Docker daemon, if it answers. It is asked once, and quickly.
var pool = sync.OnceValues(func() (*dockertest.Pool, error) {
	pool, err := dockertest.NewPool("")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDocker, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := pool.Client.PingWithContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoDocker, err)
	}
	pool.MaxWait = time.Minute
	return pool, nil
})

const (
	password = "pgcache"
	// lifetime ends a container whose test was killed, as timeout(1) understands it.
	lifetime = "15m"
)

func startContainer(ctx context.Context, major int) (*server, error) {
	pool, err := pool()
	if err != nil {
		return nil, err
	}
	image := fmt.Sprint("postgres:", major)
	container, err := pool.RunWithOptions(&dockertest.RunOptions{
		Repository: "postgres", Tag: strconv.Itoa(major),
		Env:        []string{"POSTGRES_USER=pgcache", "POSTGRES_PASSWORD=" + password, "POSTGRES_DB=pgcache"},
		Entrypoint: []string{"timeout", lifetime, "docker-entrypoint.sh"},
		Cmd:        []string{"postgres", "-c", "max_connections=500", "-c", "fsync=off"},
	}, func(host *docker.HostConfig) {
		host.AutoRemove = true
		host.RestartPolicy = docker.RestartPolicy{Name: "no"}
	})
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", image, err)
	}
	s := &server{
		major: major, where: "container " + image,
		dsn: fmt.Sprintf("postgres://pgcache:%s@%s/pgcache?sslmode=disable", password, container.GetHostPort("5432/tcp")),
		close: func() error {
			err := pool.Purge(container)
			pool.Client.HTTPClient.CloseIdleConnections()
			return err
		},
	}
	err = pool.Retry(func() (err error) {
		s.version, err = s.query(ctx, "SHOW server_version")
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not answer: %w", image, err), s.close())
	}
	s.version, _, _ = strings.Cut(s.version, " ")
	// The end of the server's first process would end the container. That of a session by a signal that it can't handle
	// makes the server start over, which comes to the same.
	s.crash = func(ctx context.Context) error {
		var exit int
		_, err := s.query(ctx, "SELECT pg_backend_pid()::text", func(pid string) (err error) {
			exit, err = container.Exec([]string{"bash", "-c", "kill -9 " + pid}, dockertest.ExecOptions{})
			return err
		})
		if err != nil || exit != 0 {
			return fmt.Errorf("kill -9 in %s: exit code %d, %w", image, exit, err)
		}
		return pool.Retry(func() error {
			_, err := s.query(ctx, "SELECT 'recovered'")
			return err
		})
	}
	return s, nil
}

// query returns the one text that a query returns. While does something while its session is there.
func (s *server) query(ctx context.Context, query string, while ...func(text string) error) (text string, err error) {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, query).Scan(&text); err != nil {
		return "", err
	}
	for _, do := range while {
		if err := do(text); err != nil {
			return "", err
		}
	}
	return text, nil
}
