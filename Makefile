# `make demo` shows Berth's main job on real data; `make test` runs every check and every test.
# Each sets up what it needs in .deps and target; nothing is installed on the machine.
SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO  ?= cargo
PYTHON ?= python3
VENV   := .deps/venv
STAMP  := $(VENV)/.installed

# Tools that `cargo xtask tools` installed come before the machine's own.
export PATH := $(CURDIR)/.deps/tools/bin:$(PATH)
# A test that needs numpy finds it here; without it such a test would not run at all.
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo demo-check test ci sdk-test venv packages prerequisites clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: prerequisites $(STAMP) ## train on real data while a leader and an agent are killed; compare to the bit
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(CARGO) xtask demo

test: prerequisites ## every check, then every test; ends with the runner's summary
	@$(CARGO) xtask tools
	@$(MAKE) sdk-test
	@$(MAKE) demo-check
	@$(CARGO) xtask ci
	@# Tests with real processes start these.
	@$(CARGO) build --quiet --locked --bins
	@$(CARGO) nextest run --locked --no-fail-fast

ci: prerequisites ## the checks alone: format, tidy, arrows, licences, lints, documentation
	@$(CARGO) xtask ci

packages: prerequisites ## Debian packages of both daemons and the command line, into target/debian
	@$(CARGO) xtask packages

sdk-test: ## tests of the Python package, standard library only
	@PYTHONPATH=sdk/python $(PYTHON) -m unittest discover --start-directory sdk/python/tests

demo-check: prerequisites $(STAMP) ## the demo's training job by itself: kill, resume, compare
	@PYTHONPATH=sdk/python $(VENV)/bin/python -m unittest discover --start-directory examples/digits --pattern 'test_*.py'

venv: $(STAMP) ## the demo's Python packages, into .deps/venv

$(STAMP): examples/digits/requirements.txt
	@echo "installing the demo's Python packages into $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

prerequisites:
	@need() { command -v "$$1" > /dev/null || { echo "error: $$1 is missing. hint: $$2" >&2; exit 1; }; }; \
	need $(CARGO) 'install rustup, then open a new shell; rust-toolchain.toml picks the version'; \
	need cc 'install a C compiler, on Debian or Ubuntu: apt-get install gcc libc6-dev'; \
	need git 'install git'; \
	need $(PYTHON) 'install Python 3.9 or newer'; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
	    || { echo "error: $(PYTHON) is too old. hint: install Python 3.9 or newer, or set PYTHON" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	    || { echo "error: $(PYTHON) has no venv. hint: on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

clean: ## removes what was built, keeps the tools and packages in .deps
	@$(CARGO) clean
