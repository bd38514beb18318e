# Two commands: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export LC_ALL := C.UTF-8

# The kernels are C: only an optimized build is worth running. Tests use the same folder and flags, so that
# nothing is compiled twice.
# The order of some arguments follows hashes; with the same order in each run, nothing is compiled again for that.
BUILD := SWIFT_DETERMINISTIC_HASHING=1 swift build -c release
# What `Scripts/check` looks for warnings in; the compiler does not repeat those of a module that did not change. Each build
# begins with a line that gives its time, in seconds since 1970.
BUILD_LOG := .build/build.log
# Before a command: it is said how long that took, for whoever looks why tests take longer than before.
timed = TIMEFORMAT='$@ took %0R s'; time
logged = mkdir -p .build; { echo "== $$(date +%s) $(1)"; $(1); } 2>&1 | tee -a $(BUILD_LOG)

# Tests and benchmarks talk to servers of their own, on this machine.
comma := ,
direct := $(or $(no_proxy),$(NO_PROXY))
export NO_PROXY := $(if $(direct),$(direct)$(comma))127.0.0.1,localhost
export no_proxy := $(NO_PROXY)

MODEL ?= Models/demo
PORT ?= 30000
DEMO := Models/demo
DEMO_PROMPT := $(DEMO)/prompts/passkey-17k-synthetic.txt

.PHONY: help setup build build-tests demo install deb package-tests serve test unit-tests rank-tests other-tests kernel-tests process-tests end-to-end-tests client-tests client-tests-all page-tests passkey attack attack-tests soak fuzz \
    check sanitize format bench oracle clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

setup: ## Install what is missing of the system's packages, and check the toolchain
	@Scripts/setup

build: setup ## Build the braid command
	@$(timed) { $(call logged,$(BUILD)); }

demo: build ## Find a number in a document of 17,000 tokens on four context ranks, and again on one
	.build/release/braid generate --model-path $(DEMO) --prompt-file $(DEMO_PROMPT) \
	    --expect ' 68157' --max-new-tokens 12 --attn-cp-size 4 --compare-one-rank
	@echo 'This shows that four ranks give the bits of one rank. It does not show speed: the model is tiny, and the ranks share'
	@echo 'the cores of this machine. For speed see Docs/performance.md.'

PREFIX ?= /usr/local

install: build ## Install the program, its manual, completion and services under PREFIX (default: /usr/local); it then needs no Swift
	@Scripts/setup --install
	DESTDIR='$(DESTDIR)' Scripts/install $(PREFIX)

deb: build ## Make a package for Debian, in .build/deb
	@Scripts/setup --package
	Scripts/deb

serve: build ## Serve MODEL (default: the demo's) on PORT (default: 30000)
	.build/release/braid serve --model-path $(MODEL) --port $(PORT)

test: unit-tests kernel-tests process-tests end-to-end-tests client-tests page-tests package-tests attack-tests ## Everything that proves the code right

build-tests: setup
	@$(timed) { $(call logged,$(BUILD) --build-tests); }

# Two processes, so that two cores are used; in each of them one test after the other: some tests measure time-outs, and
# two cores shared by all tests are too slow for those. A test that hangs ends its process with the time limit; what was
# printed until then is in a file. Nothing is built meanwhile, and `swift test` is not used: it takes the lock of the
# build, which other parts of the tests would wait for.
RANKS := ^(RankTests|ModelsTests)\.
swift_test = $(timed) timeout --foreground --kill-after=30s 35m stdbuf -oL .build/release/braidPackageTests.xctest \
	--testing-library swift-testing --no-parallel $(1) 2>&1 | tee .build/$@.log

unit-tests: rank-tests other-tests ## The tests in Swift

rank-tests: build-tests ## Those of models and layouts of ranks
	@$(call swift_test,--filter '$(RANKS)')

other-tests: build-tests .venv-test ## All others in Swift
	@$(timed) env PATH="$(CURDIR)/.venv-test/bin:$$PATH" Scripts/fetch-tokenizers
	@$(timed) env PATH="$(CURDIR)/.venv-test/bin:$$PATH" Scripts/fetch-schema-suite
	@$(call swift_test,--skip '$(RANKS)')

kernel-tests: setup ## The kernels in C under sanitizers, and those for Arm under an emulator
	@Scripts/setup --emulator || echo "kernel-tests: those for Arm will not be tried"
	$(timed) Scripts/sanitize-kernels

process-tests: build-tests ## Several processes under mpirun, and on hosts made of network namespaces
	$(timed) Tests/ProcessTests/run
	$(timed) Scripts/namespaces 2
	$(timed) Scripts/namespaces 4

end-to-end-tests: build-tests .venv-test ## Running servers: clients, disturbed and failing ones, pairs, routers, pass keys
	$(timed) .venv-test/bin/python Tests/EndToEndTests/run

client-tests: build ## The clients that most people use, unmodified, against a server whose answers are known
	$(timed) python3 Tests/ClientTests/run

page-tests: build ## The server's page in a browser
	@Scripts/setup --browser || echo "page-tests: the page will not be tried"
	@$(timed) Scripts/venv .venv-clients/page Tests/ClientTests/page-requirements.txt
	$(timed) .venv-clients/page/bin/python Tests/ClientTests/page

client-tests-all: build ## The same with all clients: benchmarks, routers and others as well (installs about 9 GB)
	python3 Tests/ClientTests/run --all

.PHONY: .venv-test
.venv-test: setup
	@$(timed) Scripts/venv $@ Tests/EndToEndTests/requirements.txt

package-tests: build ## What is installed, its units and manual, the metrics and the dashboard
	@Scripts/setup --package-tests || echo "package-tests: some will not be able to run"
	$(timed) python3 Tests/PackageTests/run

passkey: build ## Pass keys of documents of up to 32K tokens, asked for in every layout of ranks
	python3 Tests/EndToEndTests/run passkey 1024 4096 16384 32768

SECONDS := 60
MINUTES := 60
SEED := 1
attack: build ## Attack a server, the command line and the reading of checkpoints for SECONDS (default: 60), with SEED (default: 1)
	@$(call logged,$(BUILD) --product attack)
	nice -n 10 .build/release/attack --model-path $(MODEL) --seconds $(SECONDS) --seed $(SEED)

attack-tests: build-tests ## A short attack, with a random seed
	$(timed) nice -n 10 .build/release/attack --model-path $(DEMO) --seconds 25 --seed $$(od -An -N4 -tu4 /dev/urandom)

soak: build ## The same for MINUTES (default: 60), with a random seed and two context ranks
	@$(call logged,$(BUILD) --product attack)
	nice -n 10 .build/release/attack --model-path $(MODEL) --seconds $$(($(MINUTES) * 60)) \
	    --serve --attn-cp-size --serve 2 --serve --speculative-num-steps --serve 2

fuzz: setup ## libFuzzer on each reader of bytes of somebody else, for SECONDS each (default: 60)
	@Scripts/fuzz $(SECONDS)

check: build-tests ## The rules that are not tests: format, arrows, warnings, …
	@Scripts/check

sanitize: setup ## The tests of ranks, of links between servers, of the HTTP server and of the router, and the program, under the thread sanitizer
	@Scripts/sanitize

format: ## Rewrite the Swift sources in the committed format
	swift format --in-place --recursive --parallel Sources Tests Package.swift

bench: build ## Measure Braid and its peers on this machine: all SECTIONS, or some (kernels layers peers ranks crossing keys drafts serving loading plan)
	@Scripts/bench $(SECTIONS)

oracle: setup ## Make the golden values anew, from the independent implementation
	@Scripts/oracle

clean: ## Remove what was built; virtual environments stay
	rm -rf .build
