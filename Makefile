# Everything a person or CI does here. `make help` lists it.

GO        ?= go
TOOLS     := $(CURDIR)/bin
SQLC      := $(TOOLS)/sqlc
GOFUMPT   := $(TOOLS)/gofumpt
STATIC    := $(TOOLS)/staticcheck
GOLANGCI  := $(TOOLS)/golangci-lint
# Pinned: the same everywhere.
SQLC_V     := v1.31.1
GOFUMPT_V  := v0.12.0
STATIC_V   := v0.8.2
GOLANGCI_V := v2.15.0
# The modules of this repository beside the root: users never meet their dependencies.
NESTED    := $(patsubst %/go.mod,%,$(wildcard */go.mod */*/go.mod))
# What `make mutants` changes in pgcache: the way of a load; and the tests that look at it.
MUTANT_FILES := ^(getorset|load|loadcall|loadstore|loadlock)\.go$$
MUTANT_TESTS := DatabaseDown|Load|P6|GetOrSet|Guard|Foreign|MissPath|Recurs|Waiters|Ring|NotFound|TwoNodes|Panic|ManyKeys|NoConnection|Closed|Null

# How long make fuzz runs each target.
FUZZTIME  ?= 10s

.DEFAULT_GOAL := help
.PHONY: help generate verify lint test race integration harness soak faults faults-quick proof mutants linear pools examples bench fuzz api vuln licenses build cli adapters telemetry ci

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

test: ## all tests of the module; they bring their own Postgres
	$(GO) test -timeout 30m ./...

build: ## the command line, into bin/pgcache; see docs/cli.md
	cd cmd/pgcache && $(GO) build -o $(TOOLS)/pgcache .

cli: ## the tests of the command line, a module of its own
	cd cmd/pgcache && $(GO) test -timeout 10m ./...

race: ## the same under the race detector, each test over one driver, and without the examples and the models, which share nothing
	$(GO) test -race -short -run '^(Test|Fuzz)' -timeout 30m $$($(GO) list ./... | grep -v /internal/model/)

telemetry: ## the tests of the modules in telemetry
	@for m in otel prometheus; do (cd telemetry/$$m && $(GO) test ./...) || exit 1; done

fuzz: ## every fuzz target of every module, one after the other, for FUZZTIME each
	GO=$(GO) bash .ci/fuzz $(FUZZTIME)

integration: ## every supported Postgres and PgBouncer, see integration/README.md
	cd integration && $(GO) test -v -count=1 -timeout 40m ./...

harness: ## 48 nodes writing and reading for 30 s, every operation checked
	$(GO) run ./harness

faults: ## small fleets under every fault that we know; writes docs/reliability.md, in about ten minutes
	$(GO) run ./faults -out docs/reliability.md

faults-quick: ## the same in about a minute, and that the checker notices what is wrong
	$(GO) run ./faults -quick
	$(GO) run ./faults -selftest

proof: ## models and mutants, rules taken out one by one, and a fleet whose listeners are killed, over each transport and on shards
	$(GO) test -count=1 ./internal/model/...
	PGCACHE_MUTANTS=1 $(GO) test -count=1 -timeout 30m -run Mutant ./internal/coherence
	$(GO) run ./harness -selftest
	$(GO) run ./harness -kill 200ms
	$(GO) run ./harness -kill 200ms -transport immediate
	$(GO) run ./harness -transport poll
	$(GO) run ./harness -selftest -shards 3 -writers 3 -readers 3
	$(GO) run ./harness -shards 3 -move 10s -kill 200ms -writers 8 -readers 8 -duration 60s

mutants: ## small changes of the code, one at a time: which does no test notice? See docs/mutants.md
	$(GO) run ./internal/mutate -min 90 ./internal/notify ./internal/batch ./internal/window ./internal/coherence ./internal/lock
	$(GO) run ./internal/mutate ./internal/store
	$(GO) run ./internal/mutate -files '$(MUTANT_FILES)' -run '$(MUTANT_TESTS)' ./pgcache

linear: ## single keys are linearizable without a local cache, as a checker that is not ours sees it
	cd proof && $(GO) test -count=1 -v ./...

adapters: ## sessions, certificates, HTTP caches and others on the cache, with the tests of those projects
	cd adapters && $(GO) test -count=1 -timeout 15m ./...

soak: ## a fleet for half an hour: memory, goroutines, sessions and tables must not grow
	$(GO) run ./harness -soak 30m

pools: ## the recipes of docs/pools.md, with sqlx, gorm, bun and otelsql
	cd examples/pools && $(GO) test -count=1 ./...

examples: ## run the quickstart
	$(GO) run ./examples/quickstart

bench: ## beside Redis or Valkey; tables, figures and charts in docs/bench
	cd benchmarks && $(GO) run . -out ../docs/bench

generate: $(SQLC) ## write internal/dbsqlc anew from sqlc/
	cd sqlc && $(SQLC) generate

verify: $(SQLC) ## fail when generated code, go.mod or formatting is out of date
	cd sqlc && $(SQLC) diff
	$(GO) mod tidy -diff
	@for m in $(NESTED); do (cd $$m && $(GO) mod tidy -diff) || exit 1; done
	$(GO) mod verify

lint: $(GOFUMPT) $(STATIC) $(GOLANGCI) ## gofumpt, go vet, staticcheck, golangci-lint
	@files=$$($(GOFUMPT) -l $$(git ls-files -co --exclude-standard '*.go' | grep -v '^internal/dbsqlc/')); \
		test -z "$$files" || { echo "not formatted with gofumpt:"; echo "$$files"; exit 1; }
	$(GO) vet ./...
	$(STATIC) ./...
	$(GOLANGCI) run ./...
	@for m in $(NESTED); do echo "lint $$m" && (cd $$m && $(GO) vet ./... && $(GOLANGCI) run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

api: ## what has changed of the public API since the last tag; fails where a version of that kind must not change it
	GO=$(GO) bash .ci/api

vuln: ## known vulnerabilities in what the modules call; passes without a look only where the database can't be reached
	GO=$(GO) bash .ci/vuln $(NESTED)

licenses: ## what the library needs is under licenses that let everybody use it
	$(GO) test -count=1 -run TestLicenses ./internal

ci: ## what .ci/run does
	bash .ci/run

$(SQLC):
	CGO_ENABLED=0 GOBIN=$(TOOLS) $(GO) install github.com/sqlc-dev/sqlc/cmd/sqlc@$(SQLC_V)
$(GOFUMPT):
	GOBIN=$(TOOLS) $(GO) install mvdan.cc/gofumpt@$(GOFUMPT_V)
$(STATIC):
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATIC_V)
$(GOLANGCI):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_V)
