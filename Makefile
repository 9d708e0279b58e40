# Everything a person or the CI does here. Needs Python 3.11 or later with its venv module; no root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LITELLM := .peers/litellm/.installed-1.106.2
VLLM   := .peers/vllm/.installed-0.33.0

.DEFAULT_GOAL := help
.PHONY: help demo up test check format bench bench-peers hooks clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## a guided tour on real models and real traffic; ends by itself
	$(BIN)/switchback demo

up: $(STAMP) ## everything on this machine, state in ./.switchback; Ctrl-C stops it
	$(BIN)/switchback up

test: $(STAMP) ## every test, on real servers that it starts itself
	$(BIN)/python -m pytest

check: $(STAMP) ## what CI checks besides the tests: format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## put the code into its one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## our figures beside the ceilings measured in the same run
	$(BIN)/switchback bench

bench-peers: $(STAMP) $(LITELLM) ## beside LiteLLM's proxy and vLLM's scheduler, which it installs below .peers (8 GB)
	@$(MAKE) --no-print-directory $(VLLM) || echo "vLLM cannot be installed here"
	$(BIN)/python -m tests.bench.peers

hooks: $(STAMP) ## run the checks of a file when it is committed
	$(BIN)/pre-commit install

clean: ## remove what tools have built; keeps .venv and ./.switchback
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Written last: an installation that was interrupted is done again, as is one older than pyproject.toml.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Peers are measured, never needed: each has an environment of its own.
$(LITELLM):
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]==1.106.2'
	@touch $@

$(VLLM): tests/bench/peers/vllm.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'vllm==0.33.0'
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
