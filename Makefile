# Satsuma: `make help` lists what there is.
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := python3 python3-venv busybox-static debootstrap nftables tini iproute2 procps curl ca-certificates
APT_CACHE := /var/lib/apt/lists

.DEFAULT_GOAL := help
.PHONY: help system dev check format test test-unit test-tutorial test-vm demo demo-clean bench clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

system: ## Install the Debian packages that the engine uses (as root)
	@missing=""; for package in $(APT_PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  [ -n "$$(ls $(APT_CACHE) 2>/dev/null | grep -v -e lock -e partial -e auxfiles)" ] || apt-get update -qq; \
	  { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
	    || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }; } >/dev/null; fi

$(BIN)/satsuma: pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q -e '.[dev,fast]'
	@touch $@

dev: system $(VENV)/dev.stamp ## Make a development environment in .venv

check: $(VENV)/dev.stamp ## Lint, format, types, arrows between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: dev check ## Everything: checks, unit tests, real-kernel tests, black-box tests, the tutorial (as root)
	$(BIN)/python -m pytest tests

test-unit: $(VENV)/dev.stamp ## Only the fast tests, which need no root
	$(BIN)/python -m pytest tests/unit -n 2

test-tutorial: dev ## Only the walk through the tutorial
	$(BIN)/python -m pytest tests/tutorial -v

test-vm: dev ## What depends on the layout of cgroups, in virtual machines that have each (see ARCHITECTURE.md)
	@$(BIN)/python tests/vm/suite.py $(SETS)

demo: system $(BIN)/satsuma ## Install, start an engine, build and run examples/hello, ask it for its name (as root)
	@scripts/demo

demo-clean: ## Remove everything that the demo made
	@scripts/demo-clean

bench: dev ## Time the engine, paired with dockerd where one is installed (as root)
	$(BIN)/python bench/run.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
