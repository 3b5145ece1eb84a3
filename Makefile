# Two commands for a stranger: `make hello` and `make test`. Both say what they install, and can be repeated.

SHELL       := /bin/bash
CACHE       ?= $(or $(RBUILD_CACHE),$(HOME)/.cache/rbuild)
SHARED      ?= $(or $(RBUILD_SHARED),../shared)
DENY        := 0.20.2
NEXTEST     := 0.9.143
S3S_FS      := 0.14.1

export CARGO_TARGET_DIR         ?= $(CACHE)/target
export CARGO_INCREMENTAL        ?= 0
export CARGO_TERM_COLOR         ?= never
export ROCKSDB_LIB_DIR          := $(CACHE)/rocksdb
export ROCKSDB_STATIC           := 1
export BINDGEN_EXTRA_CLANG_ARGS := -I$(shell gcc -print-file-name=include 2>/dev/null)
export PATH                     := $(CACHE)/tools/bin:$(HOME)/.cargo/bin:$(PATH)

RBUILD := $(CARGO_TARGET_DIR)/release/rbuild
FUZZ   := $(CARGO_TARGET_DIR)/release/fuzz

# What the build needs, then what the tests need on top of it.
BUILD_PACKAGES := build-essential clang libclang-14-dev cmake pkg-config curl ca-certificates
RUN_PACKAGES   := busybox-static nftables iproute2 uidmap git
TEST_PACKAGES  := docker-registry passt openssh-client iptables file zstd xz-utils mmdebstrap xfsprogs e2fsprogs python3 tmux

FUZZ_SECONDS  ?= 600

.PHONY: help hello test release hot hot-check soak fuzz fuzz-smoke fuzz-build fmt clippy unit frontend-alone docs deny conformance packages-build packages-test rust rocksdb tools

help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

hello: release ## Builds rbuild and examples/hello, and runs the image
	examples/hello/hello "$(RBUILD)"

release: packages-build rust rocksdb ## Builds the release binary
	cargo build --release --locked -p buildd
	@echo "built $(RBUILD)"

test: packages-test rust rocksdb tools fmt clippy unit frontend-alone docs deny release hot-check conformance fuzz-smoke ## All checks
	@echo "all checks passed"

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --locked --workspace --all-targets -- -D warnings

unit:
	cargo build --locked --workspace --bins
	if cargo nextest --version >/dev/null 2>&1; \
	then RBUILD_SHARED=$(abspath $(SHARED)) cargo nextest run --locked --workspace --no-fail-fast; \
	else RBUILD_SHARED=$(abspath $(SHARED)) cargo test --locked --workspace --no-fail-fast; fi

# Workspace builds unify features: the frontend must also build and pass without the solver's engine.
frontend-alone:
	RBUILD_SHARED=$(abspath $(SHARED)) cargo test --locked -p frontend

docs:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items

deny:
	cargo deny --locked check bans licenses sources

conformance:
	@if [ -d "$(SHARED)/conformance" ]; \
	then python3 $(SHARED)/conformance/conform.py check --rbuild $(RBUILD) --known tests/conformance-known.txt; \
	else echo "SKIPPED: conformance, corpus"; fi

hot: packages-test rust rocksdb ## Finds out anew which functions ordinary builds run, for the linker (buildd/hot.ld)
	.ci/hot

hot-check: packages-test release
	.ci/hot check $(RBUILD)

soak: packages-test rust rocksdb release tools ## Kills the daemon a hundred times, cuts the power thirty times, builds from a million files, writes one cache from eight machines, builds twenty releases
	RBUILD_SOAK=1 RBUILD=$(RBUILD) cargo test --locked -p tests --test durability --test many_files -- --nocapture --test-threads=1
	RBUILD_SOAK=1 RBUILD=$(RBUILD) cargo test --locked -p tests --test keyed_cache writers_at_once -- --nocapture
	RBUILD_SOAK=1 RBUILD=$(RBUILD) cargo test --locked -p tests --test releases -- --nocapture

# The same dice every time: half a minute in all on two processors.
fuzz-smoke: fuzz-build
	@RBUILD_CACHE=$(CACHE) .ci/fuzz $(FUZZ) smoke

fuzz: fuzz-build ## Fuzzes every target, or those in TARGETS, for FUZZ_SECONDS (600) each
	RBUILD_CACHE=$(CACHE) .ci/fuzz $(FUZZ) $(FUZZ_SECONDS) $(TARGETS)

fuzz-build: packages-build rust rocksdb
	RUSTC_WORKSPACE_WRAPPER=$(abspath .ci/fuzz-rustc) cargo build --release --locked -p fuzz --features libfuzzer

packages-build:
	@.ci/packages $(BUILD_PACKAGES) $(RUN_PACKAGES)

packages-test:
	@.ci/packages $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES)

rust:
	@.ci/rust

rocksdb: packages-build rust
	@RBUILD_CACHE=$(CACHE) .ci/rocksdb

tools: rust
	@cargo deny --version 2>/dev/null | grep -qx "cargo-deny $(DENY)" || { echo "installing cargo-deny $(DENY)"; \
	  cargo install --quiet --debug --locked --root $(CACHE)/tools cargo-deny@$(DENY); }
	@s3s-fs --version 2>/dev/null | grep -qx "s3s-fs $(S3S_FS)" || { echo "installing s3s-fs $(S3S_FS)"; \
	  cargo install --quiet --debug --locked --root $(CACHE)/tools --features binary s3s-fs@$(S3S_FS); }
