# `make help` lists the targets. Everything is incremental; the first run sets the tree up.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
VENV := .venv/bin
STAMP := build/.setup
# The tools of the environment, for CMake's look-ups too; tc and ip may be in sbin.
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
export VIRTUAL_ENV := $(CURDIR)/.venv
export JOBS

CPP_FILES = $(shell find include src cli tests benchmarks examples \
	\( -name '*.h' -o -name '*.cc' \) 2>/dev/null)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][^:]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml tools/setup.sh tools/requirements.py tools/link_package.py
	bash tools/setup.sh
	@mkdir -p build && touch $@

.venv/bin/python:
	@rm -f $(STAMP)

.PHONY: setup
setup: .venv/bin/python $(STAMP) ## check the system, make .venv, install the pinned tools

# Configured once; ninja configures again by itself when CMake files, globs or torch change.
build/%/build.ninja: CMakePresets.json | setup
	cmake --preset $*
	@touch $@

.PHONY: build
build: setup build/release/build.ninja ## build the Python package in place, and the command
	cmake --build --preset release --parallel $(JOBS)

.PHONY: demo
demo: build ## the demonstration
	python -m dynaflow demo

# ctest with the C++ tests of one preset
define run_ctest
	cmake --build --preset $(1) --parallel $(JOBS)
	ctest --preset $(1) --parallel $(JOBS)
endef

# Clang's sanitizers, so that one build serves the C++ tests and the fuzzer.
build/asan/build.ninja: CMakePresets.json | setup
	cxx=$$(bash tools/clang.sh) && cmake --preset asan -DCMAKE_CXX_COMPILER=$$cxx
	@touch $@

FUZZ := build/asan/tests/fuzz
FUZZ_LIMITS := -max_len=4096 -timeout=30 -rss_limit_mb=2048 -malloc_limit_mb=1024

# What earlier runs learned stays in build/fuzz/corpus; an input that fails is left in build/fuzz.
build/fuzz/corpus: setup build/asan/build.ninja FORCE
	cmake --build --preset asan --target dynaflow_fuzz dynaflow_fuzz_seeds --parallel $(JOBS)
	@mkdir -p $@
	$(FUZZ)/dynaflow_fuzz_seeds build/fuzz/seeds tests/cases/*.case

.PHONY: FORCE
FORCE:

define run_fuzz
	UBSAN_OPTIONS=print_stacktrace=1 $(FUZZ)/dynaflow_fuzz $(FUZZ_LIMITS) $(1) \
	  -artifact_prefix=build/fuzz/ -print_final_stats=1 -verbosity=0 \
	  build/fuzz/corpus build/fuzz/seeds tests/cases
endef

.PHONY: test
test: asan tsan fuzz test-python ## all tests: C++ under sanitizers, fuzzing, Python, distributed, lint

.PHONY: test-cpp
test-cpp: setup build/dev/build.ninja ## C++ tests with debug checks
	$(call run_ctest,dev)

.PHONY: asan
asan: setup build/asan/build.ninja ## C++ tests under AddressSanitizer and UBSan; needs clang
	$(call run_ctest,asan)

.PHONY: tsan
tsan: setup build/tsan/build.ninja ## C++ tests under ThreadSanitizer
	$(call run_ctest,tsan)

.PHONY: test-python
test-python: build build/dev/build.ninja ## Python, distributed and lint tests
	cmake --build --preset dev --target dynaflow_mutants --parallel $(JOBS)
	cmake --build --preset release --target dynaflow_bench_plan_time --parallel $(JOBS)
	python -m pytest -m "not slow and not gpu" tests/distributed
	python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile tests/python tests/lint

.PHONY: fuzz
fuzz: build/fuzz/corpus ## random texts for the readers, for a minute; needs clang
	$(call run_fuzz,-max_total_time=60)

.PHONY: fuzz-coverage
fuzz-coverage: build/fuzz/corpus ## how much of the readers the fuzzer has reached so far; 90 % or it fails
	bash tools/fuzz_coverage.sh 90

.PHONY: gpu
gpu: build ## tests that need a CUDA device
	python -m pytest -m gpu tests

BENCH_PROGRAMS := dynaflow_bench_plan_time dynaflow_bench_host_cost
FIGURES := host-cost plan-time memory overlap eager capture

.PHONY: bench-programs
bench-programs: build ## the benchmarks in C++
	@python tools/requirements.py bench | python tools/installed.py || \
		python -m pip install -qq $$(python tools/requirements.py bench)
	cmake --preset release >/dev/null
	cmake --build --preset release --target $(BENCH_PROGRAMS) --parallel $(JOBS)

.PHONY: bench
bench: bench-programs ## every figure but vLLM's; the records go to build/bench
	@mkdir -p build/bench
	set -e; for name in $(FIGURES); do \
	  python -m dynaflow bench $$name --json build/bench/$$name.json; done

.PHONY: soak
soak: build build/fuzz/corpus ## tests that take minutes, and a million random texts
	python -m pytest -m slow tests
	$(call run_fuzz,-runs=1000000)
	bash tools/fuzz_coverage.sh 90

VLLM := build/vllm
$(VLLM)/.setup: tools/vllm.sh tools/link_package.py | setup
	bash tools/vllm.sh $(VLLM)
	@touch $@

define run_vllm_tests
	DYNAFLOW_CACHE=$(CURDIR)/build/cache $(VLLM)/bin/python -m pytest $(1) tests/vllm
endef

.PHONY: test-vllm
test-vllm: build $(VLLM)/.setup ## vLLM with DynaFlow and without: tokens, servers; installs vLLM
	$(call run_vllm_tests)

.PHONY: test-vllm-short
test-vllm-short: build $(VLLM)/.setup ## those of them that take a minute or two
	$(call run_vllm_tests,-m "not slow")

.PHONY: bench-vllm
bench-vllm: build $(VLLM)/.setup ## servers over a shaped link, with DynaFlow and without
	$(VLLM)/bin/python -m dynaflow bench vllm --json build/bench/vllm.json

.PHONY: check-2.11
check-2.11: setup ## compile the adapter against PyTorch 2.11 (downloads its wheel)
	bash tools/check_torch.sh 2.11

.PHONY: lint
lint: setup ## formatting, ruff, layers, sizes, words, integrations; all are run
	@status=0; \
	check() { echo "$$*" | cut -c1-80; "$$@" || status=1; }; \
	check ruff check .; \
	check ruff format --check .; \
	$(if $(CPP_FILES),check clang-format --dry-run --Werror $(CPP_FILES);) \
	for lint in layers sizes words integrations; do check python tests/lint/check_$$lint.py; done; \
	exit $$status

.PHONY: format
format: setup ## format the sources
	ruff check --fix-only --quiet .
	ruff format .
	$(if $(CPP_FILES),clang-format -i $(CPP_FILES))

# One stamp a file, so that only changed files are checked again. A header does not count.
TIDY_FILES = $(shell find src cli -name '*.cc' -not -path 'src/torch/*' -not -path 'src/bindings/*')

.PHONY: tidy
tidy: setup build/dev/build.ninja ## clang-tidy on the core (naming, bugprone, performance)
	@python tools/requirements.py tidy | python tools/installed.py || \
		python -m pip install -qq $$(python tools/requirements.py tidy)
	@$(MAKE) --no-print-directory $(TIDY_FILES:%=build/tidy/%.ok)

build/tidy/%.ok: % .clang-tidy
	clang-tidy --quiet -p build/dev --extra-arg=-Wno-unknown-warning-option $<
	@mkdir -p $(@D) && touch $@

.PHONY: clean
clean: ## remove what was built; .venv stays
	rm -rf build python/dynaflow/*.so
	find python tests -name __pycache__ -prune -exec rm -rf {} +
