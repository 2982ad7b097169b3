# Everything a developer or the continuous integration runs. `make` alone lists the targets.

# Pinned tools; they are built into .tools/bin, outside of the module's own dependencies.
GOLANGCI_LINT_VERSION := v2.15.0
GOFUMPT_VERSION       := v0.12.0
GOVULNCHECK_VERSION   := v1.8.0

# What the targets may be told: make fuzz FUZZTIME=5m, make bench BENCH='Commit|Decode', make chaos CHAOS=1h.
FUZZTIME ?= 30s
CHAOS    ?= 10m
BENCH    ?= .
BENCHTIME ?= 1s
TIMEOUT  ?= 10m
PKG      ?= ./...

BIN     := $(CURDIR)/.tools/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# A marker per tool and version: changing a version above builds that tool again.
GOLANGCI_LINT := $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION)
GOFUMPT       := $(BIN)/.gofumpt-$(GOFUMPT_VERSION)
GOVULNCHECK   := $(BIN)/.govulncheck-$(GOVULNCHECK_VERSION)

.DEFAULT_GOAL := help
.PHONY: help demo build test quick chaos lint fmt vuln bench fuzz cover tools postgres promtool cc specs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## two clients and a backend on a gateway of their own; STORE=postgres://… for Postgres
	bin/parley demo $(if $(STORE),--store '$(STORE)')

build: ## build the static binary bin/parley
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/parley ./cmd/parley

test: postgres promtool cc specs lint ## everything that must pass before a merge: lint, vet, tests with the race detector
	go vet ./...
	CGO_ENABLED=1 go test -race -shuffle=on -timeout $(TIMEOUT) $(PKG)

quick: ## the tests alone, without race detector and lint
	go test -timeout $(TIMEOUT) $(PKG)

chaos: postgres cc ## random failures for CHAOS (10m) on both stores at once, then the large backlogs; CHAOS_SEED repeats a run
	CHAOS=$(CHAOS) CGO_ENABLED=1 go test -race -count=1 -timeout 0 -v -run Storm ./e2e/chaos
	CHAOS=$(CHAOS) CGO_ENABLED=1 go test -race -count=1 -timeout 0 -v -run CatchUpOfAnyBacklog ./e2e

lint: tools ## linters, formatting, module hygiene, known vulnerabilities
	$(BIN)/golangci-lint run ./...
	$(BIN)/golangci-lint fmt --diff
	go mod tidy -diff
	@tools/vulncheck.sh $(BIN)/govulncheck

fmt: $(GOLANGCI_LINT) ## rewrite the sources in the agreed format
	$(BIN)/golangci-lint fmt

vuln: $(GOVULNCHECK) ## known vulnerabilities alone
	@tools/vulncheck.sh $(BIN)/govulncheck

bench: postgres build ## load scenarios against the gateway, then the Go benchmarks
	bin/parley bench
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(PKG)

fuzz: ## run every fuzz target for FUZZTIME (30s)
	@tools/fuzz.sh $(FUZZTIME)

cover: postgres ## test coverage per package
	go test -timeout $(TIMEOUT) -cover $(PKG)

tools: $(GOLANGCI_LINT) $(GOFUMPT) $(GOVULNCHECK) ## build the pinned tools into .tools/bin

postgres: ## make sure that the Postgres server binaries exist (tests start their own server)
	@tools/need.sh postgres

promtool: ## make sure that promtool exists (checks metrics and alert rules)
	@tools/need.sh promtool

specs: .tools/specs/.installed ## make sure that the validators of the API documents exist (Node.js, from npm)

.tools/specs/.installed: tools/specs/package.json tools/specs/package-lock.json tools/specs/validate.mjs
	@tools/need.sh node
	@mkdir -p .tools/specs && cp tools/specs/package.json tools/specs/package-lock.json tools/specs/validate.mjs .tools/specs/
	@cd .tools/specs && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

cc: ## make sure that a C compiler exists (the race detector needs one)
	@tools/need.sh cc

clean: ## remove what build and tools have made
	rm -rf bin .tools

$(GOLANGCI_LINT):
	@rm -f $(BIN)/.golangci-lint-*
	GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

$(GOFUMPT):
	@rm -f $(BIN)/.gofumpt-*
	GOBIN=$(BIN) go install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
	@touch $@

$(GOVULNCHECK):
	@rm -f $(BIN)/.govulncheck-*
	GOBIN=$(BIN) go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	@touch $@
