package main

import (
	"time"

	"github.com/pgcache/go/pgcache"
)

// The usual fleets.
var (
	listening = []spec{{}, {Pool: "pq"}, {Refresh: true}, {Pool: "pgxpool"}}
	mixed     = []spec{{}, {Poll: true}, {Window: pgcache.Immediate}, {Pool: "pq"}, {Window: 200 * time.Millisecond}}
)

const (
	often = 150 * time.Millisecond
	sec1  = time.Second
)

// table has every scenario.
var table = []scenario{
	{name: "no fault", specs: mixed},
	{name: "listeners killed", inject: terminate(listeners), pause: often},
	{name: "all sessions killed", inject: terminate("true"), pause: 2 * sec1, fails: writes},
	{name: "a backend stopped (SIGSTOP)", inject: stopBackend("NOT " + listeners), hold: 2 * sec1, pause: often, fails: anything},
	{name: "a backend killed (SIGKILL): crash, recovery, UNLOGGED tables empty", inject: crash, pause: 3 * sec1, fails: anything},
}
