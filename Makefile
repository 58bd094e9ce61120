# From a bare checkout: Python 3.11 or newer (with venv), make and a package registry are enough.
# Variables: PYTHON (makes the environment), VENV, RUN (the demo's run folder), JOBS (files of tests at a time), ARGS (passed on).

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install demo test check format lock serve bench clean

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/demo
JOBS ?= 0
ARGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

help:  ## list the targets
	@echo "cotray: leukemia detection (CoTCoNet) as a distributed service on Ray. Research use only."
	@echo
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## make .venv and install cotray with its tools, in the tested versions

# The stamp holds the seconds the installation took; it is older than what it was made from when that changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "cotray needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing cotray into $(VENV): a few minutes and 2 to 5 GB the first time."
	@start=$$SECONDS; \
	    $(PYTHON) -m venv $(VENV) && \
	    $(PIP) install -c constraints.txt -e '.[dev]' && \
	    echo $$((SECONDS - start)) > $@ && \
	    echo "Installed in $$((SECONDS - start)) s."

demo: install  ## run the whole pipeline on phantom smears drawn on the spot; writes RUN (runs/demo)
	@echo "cotray run on phantom smears: every stage from images to an evaluated, explained bundle in $(RUN)."
	@echo "Phantoms are drawings without medical meaning; their figures only show that the machinery works."
	@start=$$SECONDS; \
	    $(BIN)/cotray run --run $(RUN) $(ARGS) || exit $$?; \
	    echo; \
	    echo "installing  $$(cat $(STAMP)) s"; \
	    echo "running     $$((SECONDS - start)) s"; \
	    echo "report      $(CURDIR)/$(RUN)/evaluate/index.html"; \
	    echo "next        make serve"

test: install  ## run the tests; JOBS=2: two files at a time; ARGS go to pytest: make test ARGS="-m 'not slow'"
	@start=$$SECONDS; \
	    $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS); status=$$?; \
	    echo "Tests took $$((SECONDS - start)) s."; \
	    exit $$status

check: install  ## lint, format, types and the house's rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_architecture.py

format: install  ## format the code and put right what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Every extra is installed first, so that the clusters' and the benchmarks' packages are pinned as well.
lock: install  ## write the versions in .venv to constraints.txt
	@$(PIP) install -c constraints.txt -e '.[dev,s3,bench]'
	@{ grep '^#' constraints.txt; \
	    $(BIN)/python -m pip freeze --exclude-editable --exclude cotray | \
	    sed -E 's/\+[A-Za-z0-9.]+$$//' | grep -vE '^(#|nvidia|cuda|triton)'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt && touch $(STAMP)
	@echo "constraints.txt: $$(grep -vc '^#' constraints.txt) versions."

serve: install  ## serve the demo's bundle at http://127.0.0.1:8000
	$(BIN)/cotray serve --bundle $(RUN) $(ARGS)

bench: install  ## measure on real images: make bench ARGS="all-idb2=/data/ALL_IDB2"
	$(BIN)/python -m benchmarks.real_sets $(ARGS)

clean:  ## remove .venv, caches and build leftovers; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find cotray jobs serve tests -name __pycache__ -type d -prune -exec rm -rf {} +
