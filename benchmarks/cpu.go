package main

import (
	"context"
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is a server on this machine, by the id of its first process; 0: a server elsewhere, whose processor time nobody here
// can see.
type process int

// tick is the unit of /proc/<pid>/stat on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// procStat is what /proc says of one process.
type procStat struct {
	name   string
	parent int
	own    time.Duration // user and system time
	ended  time.Duration // the same of its children that have ended and were waited for
}

// parseStat reads a line of /proc/<pid>/stat. The name stands in parentheses and may contain some itself.
func parseStat(line string) (p procStat, ok bool) {
	from, to := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if from < 0 || to < from {
		return p, false
	}
	fields := strings.Fields(line[to+1:]) // from the third on
	if len(fields) < 15 {
		return p, false
	}
	number := func(i int) int {
		n, err := strconv.Atoi(fields[i-3])
		ok = ok && err == nil
		return n
	}
	ok = true
	p = procStat{
		name: line[from+1 : to], parent: number(4),
		own: time.Duration(number(14)+number(15)) * tick, ended: time.Duration(number(16)+number(17)) * tick,
	}
	return p, ok
}

// readStat reads the times of a process. Those of Postgres' processes, which have one thread each, are known to the nanosecond: an
// idle session uses less than a tick a minute.
func readStat(pid string) (procStat, bool) {
	line, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return procStat{}, false
	}
	p, ok := parseStat(string(line))
	if ok && strings.HasPrefix(p.name, "postgres") {
		if ran, err := os.ReadFile("/proc/" + pid + "/schedstat"); err == nil {
			if ns, err := strconv.ParseInt(strings.SplitN(string(ran), " ", 2)[0], 10, 64); err == nil {
				p.own = time.Duration(ns)
			}
		}
	}
	return p, ok
}

// cpu is the processor time that a server has used since it started: its first process, the children that it has waited for,
// which are the sessions that have ended, and those that live.
func (p process) cpu() (sum time.Duration) {
	if p == 0 {
		return 0
	}
	first, ok := readStat(strconv.Itoa(int(p)))
	if !ok {
		return 0
	}
	sum = first.own + first.ended
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	for _, path := range paths {
		if child, ok := readStat(filepath.Base(path)); ok && child.parent == int(p) {
			sum += child.own + child.ended
		}
	}
	return sum
}

// cpuColumn is the processor time of the server's processes. In microseconds an operation, which is seconds per million.
var cpuColumn = column{"server CPU (s per million)", "server.cpu_us", digits}

// perOperation is the metric of cpuColumn; nothing where nobody knows.
func perOperation(used time.Duration, operations uint64) metrics {
	if used <= 0 || operations == 0 {
		return metrics{}
	}
	return metrics{"server.cpu_us": micros(used) / float64(operations)}
}

// processes are those whose time the work of a node takes.
func (s *servers) processes(n Node) []process {
	switch n := n.(type) {
	case *pgNode, *bareNode:
		return []process{s.pgProcess}
	case *shardNode:
		return n.servers
	case *goRedisNode, *rueidisNode:
		return []process{s.redisProcess}
	case *txNode:
		if n.cache == nil {
			return []process{s.pgProcess}
		}
		both := append(s.processes(n.cache), s.pgProcess)
		slices.Sort(both)
		return slices.Compact(both)
	}
	return nil
}

// cpuOf is what the processes have used. 0 where one of them can't be seen.
func cpuOf(ps []process) (sum time.Duration) {
	for _, p := range ps {
		used := p.cpu()
		if used == 0 {
			return 0
		}
		sum += used
	}
	return sum
}

// findPostgres is the first process of the server of db. A server behind an address that is not this machine's has none here, and one
// in a container has other ids: the name tells.
func findPostgres(ctx context.Context, db *sql.DB) process {
	var backend int
	var local bool
	err := db.QueryRowContext(ctx, "SELECT pg_backend_pid(), coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)").Scan(&backend, &local)
	if err == nil && local {
		if p, ok := readStat(strconv.Itoa(backend)); ok && strings.HasPrefix(p.name, "postgres") {
			if first, ok := readStat(strconv.Itoa(p.parent)); ok && strings.HasPrefix(first.name, "postgres") {
				return process(p.parent)
			}
		}
	}
	return 0
}

// findProcesses looks for the servers' processes.
func (s *servers) findProcesses(ctx context.Context) {
	s.pgProcess = findPostgres(ctx, s.admin)
	if s.redis == nil {
		return
	}
	host, _, _ := net.SplitHostPort(s.redis.addr)
	info, err := s.cleaner.Info(ctx, "server").Result()
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return
	}
	for line := range strings.Lines(info) {
		if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "process_id:"); ok {
			if p, found := readStat(pid); found && (strings.HasPrefix(p.name, "redis") || strings.HasPrefix(p.name, "valkey")) {
				n, _ := strconv.Atoi(pid)
				s.redisProcess = process(n)
			}
		}
	}
}
