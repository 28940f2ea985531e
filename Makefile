# `make` alone prints what there is. Needs make and python3 (3.11 or newer); the rest installs itself
# into .venv, once per change of the files in locks/.

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

# Hashes of every file, and no address: each machine resolves from the registry it is set up for.
LOCK = $(RUN) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export UV_SYSTEM_CERTS := 1
export UV_PYTHON_DOWNLOADS := never
export PYTHONUNBUFFERED := 1

.PHONY: help run run-cluster test reset ci lint types check-generated generate format bench install lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

run: $(RUNTIME) ## Start PostgreSQL, the example apps and the gateway on PORT (8000)
	@exec $(RUN) -m app run

run-cluster: $(RUNTIME) ## The same with two gateways behind HAProxy
	@exec $(RUN) -m app run --cluster

test: $(DEV) ## Run the tests; ARGS="-k name" narrows them
	@$(RUN) -m pytest $(ARGS)

reset: $(RUNTIME) ## Delete the data of `make run` (.data, or ROWCAST_DATA_DIR)
	@$(RUN) -m app reset --yes

ci: lint types check-generated test ## Every check there is

lint: $(DEV) ## Style of Python and SQL, layers, migrations
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/sqlfluff lint --disable-progress-bar sql
	@$(VENV)/bin/squawk sql/migrations/*.sql
	@$(RUN) tests/house/parse_sql.py

types: $(DEV) ## Strict types
	@$(VENV)/bin/mypy

check-generated: $(DEV) ## Whether generated files are current
	@$(RUN) -m docs.generate --check

generate: $(DEV) ## Write the generated files again
	@$(RUN) -m docs.generate

format: $(DEV) ## Format Python
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

bench: $(DEV) ## Measure speed against the raw limits; writes bench/RESULTS.md
	@$(RUN) -m bench $(ARGS)

install: $(DEV) ## Install everything, without running anything

lock: $(DEV) ## Resolve the dependencies again into locks/
	@$(LOCK) pyproject.toml -o locks/runtime.txt
	@$(LOCK) pyproject.toml --group dev -c locks/runtime.txt -o locks/dev.txt

clean: ## Delete what was installed and cached; data stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
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
