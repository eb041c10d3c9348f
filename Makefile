# Everything a newcomer and CI need. On a fresh clone with Python 3.11+, git and make, each target works alone:
# it makes .venv, installs what it needs and does its job; later calls start at once.
#
#   make                       install the package with all tools for development
#   make test                  tests and doctests, on all cores    (one file: make test ARGS=tests/test_layers.py)
#   make demo                  train, record, analyse, report          (make demo ARGS=--help)
#   make check                 all that CI checks: format, lint, types, import layers, tests, docs
#   make format docs bench clean
#
#   PYTHON=python3.12          the interpreter .venv is made from
#   TORCH=torch==2.14.1        another build of torch than the tested one; remembered until `make clean`

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
PINNED_TORCH := $(shell sed -n '/^torch==/p' $(CONSTRAINTS))
ifndef TORCH
TORCH := $(or $(shell cat $(VENV)/torch-chosen 2>/dev/null),$(PINNED_TORCH))
endif
CHOSEN_TORCH := $(filter-out $(PINNED_TORCH),$(TORCH))
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# A .venv counts as usable if its Python starts, is new enough, and no installation into it was cut short.
USABLE := $(shell test ! -e $(VENV)/installing && \
	$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes)
OTHER_TORCH := $(shell test "$(TORCH)" = "`cat $(VENV)/torch-installed 2>/dev/null`" || echo yes)

.PHONY: install test demo check check-static format-check lint types docs format bench clean force
.DEFAULT_GOAL := install

install: $(VENV)/ready-dev

test: $(VENV)/ready-dev
	$(BIN)/python -m pytest $(or $(ARGS),-n logical --maxprocesses 4 --dist worksteal)

demo: $(VENV)/ready
	$(BIN)/phasescope demo $(ARGS)

# The import layers are checked by tests/test_layers.py.
check: check-static test

check-static: format-check lint types docs

format-check: $(VENV)/ready-dev
	$(BIN)/ruff format --check .

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .

types: $(VENV)/ready-dev
	$(BIN)/basedpyright

docs: $(VENV)/ready-dev
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs docs/_build/html

format: $(VENV)/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/ready-dev
	$(BIN)/python benchmarks/run.py $(ARGS)

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- installing ---------------------------------------------------------------------------------

ifdef USABLE
$(VENV)/ready-venv:
	@touch $@
else
$(VENV)/ready-venv: force
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "phasescope needs Python 3.11 or newer, but PYTHON=$(PYTHON) gives: `$(PYTHON) --version 2>&1`." >&2; \
	  echo "Name a newer one, for example: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
endif

# torch comes first and by itself, so that nothing below picks another build of it. The pin of torch holds only for
# the tested build.
$(VENV)/torch-installed: $(VENV)/ready-venv $(CONSTRAINTS) $(if $(OTHER_TORCH),force)
	@touch $(VENV)/installing
	@sed '$(if $(CHOSEN_TORCH),/^torch==/d)' $(CONSTRAINTS) > $(VENV)/constraints.txt
	$(PIP) install '$(TORCH)' -c $(VENV)/constraints.txt
	@$(if $(CHOSEN_TORCH),echo '$(TORCH)' >,rm -f) $(VENV)/torch-chosen
	@echo '$(TORCH)' > $@
	@rm $(VENV)/installing

# What running needs; the tools for development include it.
$(VENV)/ready: $(VENV)/torch-installed pyproject.toml
	@touch $(VENV)/installing
	$(PIP) install -e . -c $(VENV)/constraints.txt
	@rm $(VENV)/installing
	@touch $@

$(VENV)/ready-dev: $(VENV)/torch-installed pyproject.toml
	@touch $(VENV)/installing
	$(PIP) install -e '.[dev,docs,bench]' -c $(VENV)/constraints.txt
	@rm $(VENV)/installing
	@touch $@ $(VENV)/ready
