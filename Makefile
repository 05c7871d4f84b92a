# One-line verbs. `make demo` shows the main job, `make test` runs every test, `make prove` the long proofs.
SHELL := /bin/bash
INPUT ?=
MODEL ?= smollm2
NEXTEST := 0.9.143
OPENAI := 3.57.0
A2A := 1.3.0
export PATH := $(CURDIR)/.tools/bin:$(PATH)
# Where the tests of tools look for the servers that `make tool-servers` installs.
export QUORATE_TOOL_SERVERS ?= $(CURDIR)/.tools/tool-servers

SEEDS ?= 300

.PHONY: help demo test sim prove verify fix build model dist deploy-tests random-models vocabularies encoder openai-client a2a-client python-sdk-tools python-sdk typescript-sdk-tools typescript-sdk tool-servers provider-peers tools format lint fetched unit bench docs clean page-screens

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: ## the main job on a fresh machine: a team of agents on 3 coordinators and 2 workers, one of which is killed
	cargo build --release -p quorate -p demo
	./target/release/quorate model pull smollm2
	./target/release/quorate-demo --input "$(INPUT)"

# What pip and npm bring takes minutes of waiting: meanwhile the compiler works.
test: tools format ## every test: formatting, lints, units, simulator, real processes, real model
	@mkdir -p .tools; $(MAKE) fetched >.tools/fetched.log 2>&1 & fetched=$$!; \
		$(MAKE) build; built=$$?; wait $$fetched || { cat .tools/fetched.log; exit 1; }; exit $$built
	@$(MAKE) unit

tools: ## cargo-nextest, where it is missing
	@cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --version $(NEXTEST) --locked --root .tools

format:
	cargo fmt --all --check

lint: format ## formatting and lints alone
	cargo clippy --workspace --all-targets -- -D warnings

# Clippy's driver is the compiler with lints. As `cargo clippy` it would check all dependencies first, for minutes, and
# then the tests would need them built; in the compiler's place for our crates it lints what it builds anyway.
LINTED := RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__

# Everything in one call: with other packages or targets selected, cargo would build the dependencies again.
build: ## every crate, test and binary, once, linted: a warning is an error
	$(LINTED) cargo build --workspace --all-targets

model: build ## the models that the tests and the demo use
	./target/debug/quorate model pull smollm2
	./target/debug/quorate model pull gemma3-270m

# A small model of every architecture. The packages that write them stay below target/; what they write is compared
# by SHA-256, so that any numpy will do.
random-models: target/random-models/done ## the models of random weights that tests run

target/random-models/done: worker-inference/tests/random_models.py
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target target/random-models/python \
		gguf==0.19.0 'numpy<3' 'pyyaml<7'
	PYTHONPATH=target/random-models/python python3 $< target/random-models
	touch $@

vocabularies: ## real vocabularies and chat templates that the tokenizer is compared with
	@tests/vocabularies.sh

encoder: ## the encoder of memories
	@tests/encoder.sh

openai-client: ## OpenAI's official Python client, for the test of the HTTP face
	@.tools/openai/bin/python -c 'import openai; assert openai.__version__ == "$(OPENAI)"' 2>/dev/null || \
		(python3 -m venv .tools/openai && .tools/openai/bin/pip install -q openai==$(OPENAI))

a2a-client: ## A2A's official Python client, for the test of the A2A face
	@.tools/a2a/bin/python -c 'from importlib.metadata import version; assert version("a2a-sdk") == "$(A2A)"' 2>/dev/null || \
		(python3 -m venv .tools/a2a && .tools/a2a/bin/pip install -q a2a-sdk==$(A2A))

python-sdk-tools: ## what checks the Python SDK
	@sdk/python/tools.sh

python-sdk: ## types, lints and tests of the Python SDK, with the binary of `make build`
	@tests/python-sdk.sh

typescript-sdk-tools: ## the packages of the TypeScript SDK
	@sdk/typescript/tools.sh

typescript-sdk: ## types and tests of the TypeScript SDK, with the binary of `make build`
	@tests/typescript-sdk.sh

page-screens: python-sdk-tools ## the page in headless Chromium: checks, and the screenshots of docs/page.md
	@.tools/python-sdk/bin/python tests/page-browser.py

tool-servers: ## real MCP servers from PyPI and npm, for the tests of tools
	@tests/tool-servers.sh "$(QUORATE_TOOL_SERVERS)"

provider-peers: build ## the clients of providers against real servers, see tests/providers-peers.sh
	@tests/providers-peers.sh

fetched: tool-servers random-models vocabularies encoder openai-client a2a-client python-sdk-tools typescript-sdk-tools

unit: model deploy-tests fetched
	$(LINTED) cargo nextest run --workspace

# Both tiers and their planted mistakes, on all cores: docs/testing.md. S2_SEEDS is a tenth of SEEDS.
sim: tools ## the simulator, SEEDS=300: the ledger and the agents over an ideal log, then real raft on lossy disks
	cargo build --release -p sim
	./target/release/sim --seeds $(SEEDS)
	SIM_S2_SEEDS=$(or $(S2_SEEDS),$(shell echo $$(($(SEEDS) / 10 > 1 ? $(SEEDS) / 10 : 2)))) \
		cargo nextest run --release --profile prove --no-capture -p coordinator -E 'test(/storm_test/)'

prove: tools ## long proofs: full seeds, cut points, kill series (docs/testing.md says how long)
	./tests/prove.sh

verify: test ## what CI runs; never writes into the tree

fix: ## formats, and applies what clippy can fix by itself
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty

bench: ## figures of the engine on this machine
	cargo build --release -p quorate
	./target/release/quorate engine bench -m $(MODEL) -p 512 -n 128 -d 0,512 -b 1,8,16 -t 2 -r 3

dist: ## one archive and a Debian package in dist/, from the release build or QUORATE=…
	@test -n "$$QUORATE" || cargo build --release -p quorate
	@deploy/dist.sh

# Of a program that is built already: QUORATE=…, else the debug build. Blocks of the runbook: `deploy/run-runbook.py`.
deploy-tests: build ## units within their limits, install and uninstall below a folder, reproducible archives
	@QUORATE=$${QUORATE:-target/debug/quorate} python3 deploy/test_deploy.py
	@python3 deploy/grafana/make.py --check

docs: ## the API's pages
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

clean:
	rm -rf target dist demo-out .local-cluster
