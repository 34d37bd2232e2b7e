module github.com/pgcache/go/telemetry/prometheus

go 1.25.0

replace github.com/pgcache/go => ../../
