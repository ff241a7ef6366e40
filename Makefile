# The two commands a newcomer needs are `make demo` and `make test`. All of them run as root.
SHELL := /bin/sh
PYTHON ?= /usr/bin/python3
VENV := .venv/bin
SOURCES := $(wildcard services clients testbed bench tests setup)

# Words of a test's name that `make test-fault` is kept to: ONLY='metasched.decided', ONLY='killed', or ONLY='round-07',
# one of 23 rounds, each of which has every point once and every fault.
ONLY ?=

# Worlds that `make test-sim` simulates: how many seeds, from which one on.
SEEDS ?= 2000
FROM ?= 0

# Files of tests that need no hosts, at a time. 0: all in one process, as `pytest` alone does it.
TESTS_AT_A_TIME ?= 2

.PHONY: help setup demo down test test-guests test-clients test-stock test-fault test-sim test-fresh bench bench-full lint protos clean
.NOTPARALLEL:

help:
	@echo "make demo         two sites, a cluster over both, what it promised and what was measured"
	@echo "make demo KEEP=1  the same, left up; 'make down' ends it"
	@echo "make test         sets up, lints, and runs the tests, of the longest suites a few"
	@echo "make test-guests  runs all tests with guests, with those that 'make test' leaves out"
	@echo "make test-clients runs the clients in all languages, Ruby and Go too"
	@echo "make test-stock   builds a Debian image with cloud-init, and boots guests of it"
	@echo "make test-fault   fails everything at every point of a commit, for hours; ONLY='round-07' a round of 23"
	@echo "make test-sim     simulates 2,000 worlds in virtual time, for an hour or more; SEEDS=100 FROM=4000 others"
	@echo "make test-fresh   proves the set-up in a new minimal Debian tree"
	@echo "make setup        installs what is missing, and nothing else"
	@echo "make bench        figures against floors of the same run, quickly; 'make bench-full' takes its time"
	@echo "make lint protos clean"

# A recipe that runs long is one `exec`, so that Ctrl-C reaches the program and make waits for it.

setup:
	@PYTHON=$(PYTHON) exec sh setup/setup.sh

demo: setup
	@exec $(VENV)/python -m testbed.demo $(if $(filter 1,$(KEEP)),--keep)

down:
	@exec $(VENV)/python -m testbed down

# First what needs no hosts, a file of tests on each core; then what wants the machine to itself.
test: setup lint
	@exec $(VENV)/python -m pytest --hosts without -n $(TESTS_AT_A_TIME) --dist loadfile --no-loadscope-reorder
	@exec $(VENV)/python -m pytest --hosts only

# `make test` leaves out what shows once more what another test of it shows.
test-guests: setup
	@exec $(VENV)/python -m pytest -m "not more_clients and not stock" tests/e2e

# All that Node's and C++'s are put to in `make test`, and Ruby's and Go's too.
test-clients:
	@PYTHON=$(PYTHON) sh setup/setup.sh clients
	@exec $(VENV)/python -m pytest -m "" tests/clients tests/e2e/test_clients.py

test-stock:
	@PYTHON=$(PYTHON) sh setup/setup.sh stock
	@$(VENV)/python -m setup.stock_image
	@exec $(VENV)/python -m pytest -s -m stock tests/e2e/test_stock_image.py
# `make test` has a few of these.
test-fault: setup
	@exec $(VENV)/python -m pytest -m "" tests/fault tests/model tests/integration/test_flaky_network.py $(if $(ONLY),-k "$(ONLY)")

# No process is real here but this one: `make test-fault` has real ones. `make test` has a few of these.
test-sim: setup
	@exec $(VENV)/python -m tests.sim --seeds $(SEEDS) --from $(FROM)

test-fresh:
	@exec sh setup/fresh.sh

bench: setup
	@exec $(VENV)/python -m bench --quick

bench-full: setup
	@exec $(VENV)/python -m bench

lint: setup
	@$(VENV)/ruff check $(SOURCES)
	@$(VENV)/ruff format --check $(SOURCES)
	@$(VENV)/mypy $(SOURCES)
	@$(VENV)/lint-imports

protos: setup
	@exec $(VENV)/python -m setup.protos

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
