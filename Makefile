# The only commands that CI, the README and the documentation use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# No tool used here reports home.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := true
export GX_ANALYTICS_ENABLED := false
export ITERATIVE_DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The steps of dvc.yaml find the environment's python.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install run test lint report bench-peers image s3 clean

help: ## say what there is to do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) $(BIN)/kinglet ## install everything into .venv, once per requirements.lock

# The lock is complete, so pip has nothing to resolve, and `pip check` proves it. torch alone may need packages
# that depend on the machine: its GPU libraries, where no CPU build is offered.
$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Kinglet needs Python 3.11 or newer, and '$(PYTHON)' is not; try make PYTHON=python3.11 $(or $(MAKECMDGOALS),install)." >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu install the package python3-venv." >&2; exit 2; }
	$(BIN)/python -m pip install --no-deps -r requirements.lock
	$(BIN)/python -m pip install -c requirements.lock torch
	$(BIN)/python -m pip check
	@touch $@

$(BIN)/kinglet: flows/kinglet.sh $(STAMP)
	@cp flows/kinglet.sh $@ && chmod 755 $@

run: install ## run the pipeline of dvc.yaml with the settings of params.yaml
	$(BIN)/kinglet run

# Two processes with as many threads each would wait for one another. A file's tests stay in one process, which makes
# what they share once; the longest files come first, as they are collected.
test: install ## run the whole test suite, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install ## check style, types, the direction of imports, workflows and dvc.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/zizmor --offline --quiet --no-progress .github
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not installed here, not run."; fi
	@$(BIN)/dvc dag >/dev/null && echo "dvc.yaml is valid."

report: install ## say where the report of the last run lies
	$(BIN)/kinglet report

bench-peers: install ## measure the last run beside other tools, each in an environment of its own
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.table

image: install ## build the container image of the last run's bundle
	$(BIN)/kinglet image build

s3: install ## start an S3 server on this machine, for trying `kinglet publish`; Ctrl-C stops it
	$(BIN)/python -m flows.s3_server

clean: ## remove what runs leave, but not the environment and DVC's cache
	rm -rf artifacts .kinglet .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
