# `make run`: a node with people to chat with. `make test`: everything, against private Postgres and Redis.
# What is missing on a Debian machine is installed when root, else named in one line (scripts/need.sh).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 3
SECONDS_EACH ?= 20

.PHONY: build run test check cargo-test js-test simulate chaos saboteur bench bench-db bench-history load need-build need-run need-test

build: need-build
	$(CARGO) build --release --locked --features tools

run: need-run
	$(CARGO) build --release --locked --bin haus
	HAUS_AUTO_ACTIVATE=$${HAUS_AUTO_ACTIVATE:-true} exec $(TARGET)/release/haus serve

# One profile (dev) for all of it. The summaries of cargo test come last, where a log's reader looks first.
test: need-test check cargo-test
	@$(MAKE) --no-print-directory chaos CHAOS_PROFILE=debug SEEDS=3 SECONDS_EACH=20
	@echo; grep -E '^(test result|     Running|   Doc-tests)' $(TARGET)/cargo-test.log

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features tools -- -D warnings

cargo-test:
	@mkdir -p $(TARGET)
	$(CARGO) test --locked --features tools 2>&1 | tee $(TARGET)/cargo-test.log

# Also part of cargo-test (tests/it/page.rs), with the browser test.
js-test:
	node --test clients/js/test/*.test.js

# The engine under a virtual clock. SEEDS: how many; FROM: the first; SEED: that one alone, its history is written.
simulate: need-build
	SEEDS=$(if $(filter command line environment,$(origin SEEDS)),$(SEEDS),20000) $(CARGO) test --release --locked --lib simulation::tests::nothing -- --nocapture

# CHAOS_PROFILE=debug takes the programs that `make test` has built, as they are.
CHAOS_PROFILE ?= release
chaos: need-test
	$(if $(filter release,$(CHAOS_PROFILE)),$(CARGO) build --locked --features tools --bin haus --bin haus-chaos --release)
	$(TARGET)/$(CHAOS_PROFILE)/haus-chaos --seeds $(SEEDS) --seconds $(SECONDS_EACH)

# Every planted bug must be caught under its name; then the same plans without them, where nothing may be found.
saboteur: need-test
	$(CARGO) build --locked --features tools,saboteur --target-dir $(TARGET)/saboteur --bin haus --bin haus-chaos
	$(TARGET)/saboteur/debug/haus-chaos --saboteur
	$(TARGET)/saboteur/debug/haus-chaos --saboteur --control

bench: need-test
	loadtest/bench.sh

# What the database alone takes: the server's own call, back to back with full batches.
bench-db: need-test
	loadtest/bench-db.sh

# A page of history at any depth of ten million messages.
bench-history: need-test
	loadtest/bench-history.sh

load: need-run
	loadtest/load.sh

need-build:
	@scripts/need.sh cc:build-essential

need-run:
	@scripts/need.sh cc:build-essential postgres:postgresql

need-test:
	@scripts/need.sh cc:build-essential postgres:postgresql redis-server:redis-server pgbouncer:pgbouncer setpriv:util-linux node:nodejs npm:npm venv:python3-venv chromium:chromium
