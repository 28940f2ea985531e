# `make` alone prints what there is. Needs make, python3 (3.11 or newer) and node (20.19 or newer) with
# npm; the rest installs itself into .venv and client/node_modules, once per change of the locks.

.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# The folder counts too: a virtual environment cannot be moved.
STAMP = $(VENV)/installed-$(1)-$(shell (pwd; cat locks/uv.txt locks/$(1).txt) | cksum | cut -d ' ' -f 1)
RUNTIME := $(call STAMP,runtime)
DEV := $(call STAMP,dev)
NODE := client/node_modules/installed-$(shell cat client/package-lock.json client/.npmrc | cksum | cut -d ' ' -f 1)
NPM := npm --prefix client --silent run
APPS := client/demo/dist/index.html
APP_SOURCES := $(shell find client/src client/demo -path client/demo/dist -prune -o -type f -print)

# Hashes of every file, and no address: each machine resolves from the registry it is set up for.
LOCK = $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
export PYTHONUNBUFFERED := 1

.PHONY: help run run-cluster test e2e soak planted-faults reset ci lint types size check-generated generate format bench prove-image
.PHONY: client demo dist apps install lock clean test-client

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

run: $(RUNTIME) apps ## Start PostgreSQL, the example apps and the gateway on PORT (8000)
	@exec $(RUN) -m app run

run-cluster: $(RUNTIME) apps ## The same with two gateways behind HAProxy
	@exec $(RUN) -m app run --cluster

# What ARGS narrows are the tests of Python: with them the client's are left out, and node is not needed. All of them
# are run by several processes.
test: $(DEV) $(if $(ARGS),,$(NODE) $(APPS)) ## Run the tests; ARGS="-k name" narrows them to some of Python's
	@$(RUN) -m pytest $(or $(ARGS),-n auto); python=$$?; \
	$(if $(ARGS),client=0,$(NPM) test; client=$$?); \
	word() { [ "$$1" -eq 0 ] && echo passed || echo FAILED; }; \
	echo; echo "Tests of Python: $$(word $$python)"; \
	echo "Tests of the client: $(if $(ARGS),left out,$$(word $$client))"; \
	[ "$$python" -eq 0 ] && [ "$$client" -eq 0 ]

e2e: export ROWCAST_REQUIRE_BROWSER := 1
e2e: $(DEV) $(APPS) ## Use the example apps in Chromium: the tests of tests/e2e, which `make test` runs too
	@$(RUN) -m pytest tests/e2e $(ARGS)

soak: $(DEV) ## Load, faults, convergence, what must not grow: SOAK_SECONDS (600), SOAK_WRITES (500 a second)
	@$(RUN) -m tests.faults.soak

planted-faults: $(DEV) ## Break the engine in known ways and see the tests fail; ARGS="name" picks one
	@$(RUN) -m tests.faults.planted $(ARGS)

reset: $(RUNTIME) ## Delete the data of `make run` (.data, or ROWCAST_DATA_DIR)
	@$(RUN) -m app reset --yes

ci: export ROWCAST_REQUIRE_BROWSER := 1
ci: lint types check-generated client size test ## Every check there is

lint: $(DEV) $(NODE) ## Style of Python, SQL and TypeScript, layers, migrations
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/sqlfluff lint --disable-progress-bar sql
	@$(VENV)/bin/squawk sql/migrations/*.sql
	@$(RUN) tests/house/parse_sql.py
	@$(VENV)/bin/hadolint docker/Dockerfile docker/pgbouncer/Dockerfile
	@$(NPM) lint

types: $(DEV) $(NODE) ## Strict types of Python and TypeScript
	@$(VENV)/bin/mypy
	@$(NPM) types

size: $(NODE) ## Whether the client is as small as it has to be
	@$(NPM) size

check-generated: $(DEV) $(NODE) ## Whether generated files are current
	@$(RUN) -m docs.generate --check

generate: $(DEV) $(NODE) ## Write the generated files again
	@$(RUN) -m docs.generate

format: $(DEV) $(NODE) ## Format Python and TypeScript
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format
	@$(NPM) format

prove-image: $(DEV) ## Carry out the Dockerfiles on a bare Debian tree and start the result; root, debootstrap
	@$(RUN) docker/prove.py

bench: $(DEV) ## Measure speed against the raw limits; writes bench/RESULTS.md
	@$(RUN) -m bench $(ARGS)

client: $(NODE) ## Build the npm package (client/dist)
	@$(NPM) build

test-client: $(NODE) $(APPS) ## Run the tests of the client alone
	@$(NPM) test

dist: $(DEV) $(NODE) $(APPS) client ## Build the wheel, the source distribution and the npm package into dist
	@rm -rf dist && mkdir dist
	@$(RUN) -m hatchling build -d dist
	@cd client && npm pack --silent --pack-destination ../dist

demo: $(NODE) ## Build the example apps (client/demo/dist)
	@$(NPM) demo

# Built anew when something they are made of has changed. The gateway starts without them, too.
apps:
	@$(MAKE) --silent $(APPS) || echo 'The gateway starts without the example apps: they could not be built.' >&2

$(APPS): $(NODE) $(APP_SOURCES)
	@$(NEEDS_NODE)
	@echo 'Building the example apps ...'
	@$(NPM) demo -- --logLevel warn

install: $(DEV) $(NODE) ## Install everything, without running anything

lock: $(DEV) ## Resolve the dependencies again into locks/ and client/package-lock.json
	@$(NEEDS_NODE)
	@$(LOCK) pyproject.toml -o locks/runtime.txt
	@$(LOCK) pyproject.toml --extra traces -c locks/runtime.txt -o locks/traces.txt
	@$(LOCK) pyproject.toml --group dev -c locks/runtime.txt -o locks/dev.txt
	@$(LOCK) --group build -c locks/dev.txt -o locks/build.txt
	@cd client && npm install --package-lock-only --no-audit --no-fund

clean: ## Delete what was installed, built and cached; data stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .failures dist build
	rm -rf client/node_modules client/dist client/demo/dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The order in which a machine can fail: no Python, too old, without venv; each is said in words.
$(VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo 'Missing: python3, version 3.11 or newer. Debian, Ubuntu: apt install python3 python3-venv' >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Too old: $$("$(PYTHON)" --version); 3.11 or newer is needed. Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo 'Missing: the venv module of Python. Debian, Ubuntu: apt install python3-venv' >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)

# npm empties the folder first, and with it the stamp of what was installed before.
$(NODE):
	@$(NEEDS_NODE)
	@echo 'Installing (client/package-lock.json) ...'
	@cd client && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(RUNTIME): | $(VENV)/bin/python
	@$(call INSTALL,runtime,$@)

$(DEV): | $(VENV)/bin/python
	@$(call INSTALL,dev,$@)

# uv takes a third of pip's time, but only pip reads pip's own configuration (a mirror, certificates).
# Leaves a path file and the command `rowcast` for the checkout: the package is not built to run it.
define INSTALL
set -e; echo "Installing (locks/$(1).txt) ..."; \
$(RUN) -m pip install --quiet --require-hashes -r locks/uv.txt; \
$(RUN) -m uv pip install --quiet --require-hashes -r locks/$(1).txt || \
$(RUN) -m pip install --quiet --require-hashes -r locks/$(1).txt; \
pwd > "$$($(RUN) -c 'import site; print(site.getsitepackages()[0])')/rowcast-checkout.pth"; \
printf '#!/bin/sh\nexec "%s/$(RUN)" -m app "$$@"\n' "$$(pwd)" > $(VENV)/bin/rowcast; \
chmod +x $(VENV)/bin/rowcast; \
rm -f $(VENV)/installed-$(1)-*; touch $(2)
endef

# The distributions of today have older ones, or none.
define NEEDS_NODE
set -e; command -v node >/dev/null || { \
    echo 'Missing: node, version 20.19 or newer. From https://nodejs.org' >&2; exit 1; }; \
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a < 20 || (a == 20 && b < 19) ? 1 : 0)' || { \
    echo "Too old: node $$(node --version); 20.19 or newer is needed. From https://nodejs.org" >&2; exit 1; }; \
command -v npm >/dev/null || { \
    echo 'Missing: npm. It comes with node from https://nodejs.org; Debian, Ubuntu: apt install npm' >&2; exit 1; }
endef
