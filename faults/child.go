package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"time"
)

// childEnv makes this program a node: it holds the node's spec, and requests come on the standard input.
const childEnv = "PGCACHE_FAULTS_NODE"

type order struct {
	Spec  spec
	Where where
}

// child is a node in a process of its own, which can be stopped. It has no loader: those are functions.
type child struct {
	order
	mu  sync.Mutex
	cmd *exec.Cmd
	rpc *rpc.Client
}

func startChild(s spec, w where) (*child, error) {
	c := &child{order: order{s, w}}
	return c, c.start()
}

// start starts the process.
func (c *child) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	given, err := json.Marshal(c.order)
	if err != nil {
		return err
	}
	cmd := exec.Command(self) //nolint:noctx // it ends when its input does
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"="+string(given)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd, c.rpc = cmd, rpc.NewClient(stream{out, in})
	return nil
}

// process returns the process that there is now, and the way to it.
func (c *child) process() (*exec.Cmd, *rpc.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd, c.rpc
}

// kill ends the process without a word, and start begins another.
func (c *child) kill() error {
	cmd, client := c.process()
	err := cmd.Process.Kill()
	_ = cmd.Wait() // it says that it was killed
	client.Close() //nolint:errcheck // it has ended by itself
	return err
}

// stream is both ends of a pipe.
type stream struct {
	io.ReadCloser
	w io.WriteCloser
}

func (s stream) Write(p []byte) (int, error) { return s.w.Write(p) }
func (s stream) Close() error                { return errors.Join(s.w.Close(), s.ReadCloser.Close()) }

// Answer is what a child has found.
type Answer struct {
	Values map[string]value
}

func (c *child) call(method string, keys []string, v value) (map[string]value, error) {
	var a Answer
	_, client := c.process()
	err := client.Call("Served."+method, Request{keys, v}, &a)
	return a.Values, err
}

func (c *child) Get(_ context.Context, key string) (value, bool, error) {
	values, err := c.call("GetMany", []string{key}, value{})
	v, found := values[key]
	return v, found, err
}

func (c *child) GetMany(_ context.Context, keys []string) (map[string]value, error) {
	return c.call("GetMany", keys, value{})
}

func (c *child) GetOrSet(context.Context, string, func(context.Context) (value, error)) (value, error) {
	return value{}, errors.ErrUnsupported
}

func (c *child) Set(_ context.Context, key string, v value) error {
	_, err := c.call("Set", []string{key}, v)
	return err
}

func (c *child) Delete(_ context.Context, key string) error {
	_, err := c.call("Delete", []string{key}, value{})
	return err
}

func (c *child) Clear(context.Context) error { return errors.ErrUnsupported }

func (c *child) Ready(context.Context) error {
	_, err := c.call("Ready", nil, value{})
	return err
}

func (c *child) Close() error {
	_, err := c.call("Shut", nil, value{})
	cmd, client := c.process()
	return errors.Join(err, client.Close(), cmd.Wait())
}

// Served is a node that answers the requests of another process.
type Served struct{ l *local }

// Request is what a node is asked to do.
type Request struct {
	Keys  []string
	Value value
}

// serve is this program as a node. It ends when its input does.
func serve(given string) error {
	var o order
	if err := json.Unmarshal([]byte(given), &o); err != nil {
		return fmt.Errorf("%s: %w", childEnv, err)
	}
	l, err := o.Spec.open(o.Where)
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Served{l}); err != nil {
		return err
	}
	server.ServeConn(stream{os.Stdin, os.Stdout})
	return nil
}

// GetMany reads one key or several.
func (s *Served) GetMany(r Request, a *Answer) (err error) {
	if len(r.Keys) == 1 {
		v, found, err := s.l.Get(context.Background(), r.Keys[0])
		if found {
			a.Values = map[string]value{r.Keys[0]: v}
		}
		return err
	}
	a.Values, err = s.l.GetMany(context.Background(), r.Keys)
	return err
}

// Set stores a value.
func (s *Served) Set(r Request, _ *Answer) error {
	return s.l.Set(context.Background(), r.Keys[0], r.Value)
}

// Delete removes a key.
func (s *Served) Delete(r Request, _ *Answer) error {
	return s.l.Delete(context.Background(), r.Keys[0])
}

// Ready waits until the node listens.
func (s *Served) Ready(Request, *Answer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.l.Ready(ctx)
}

// Shut closes the node.
func (s *Served) Shut(Request, *Answer) error { return s.l.Close() }
