.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: help run smoke test quick lint soak-kernel kill-matrix soak fuzz compat format lock clean python ready ready-dev

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: ready ## set up if needed, start the daemon, and ask it a first question
	@$(VENV) -m tools.firstlight run

smoke: ready ## the same on a free port with a store of its own, then stop
	@$(VENV) -m tools.firstlight smoke

test: ready-dev ## lint, types, layers and all tests
	@$(VENV) -m tools.check

quick: ready-dev ## the same without tests that start processes or load models
	@$(VENV) -m tools.check --quick

kill-matrix: ready-dev ## kill or stop a runner at every point of its life, under eight streams
	@$(VENV) -m tests.endurance.killmatrix

soak: ready-dev ## hostile clients for SOAK_SECONDS (600); fails unless the daemon stays as it was
	@$(VENV) -m tests.endurance.soak

fuzz: ready-dev ## requests made of the OpenAPI document for FUZZ_SECONDS (120); fails on any 5xx but 503
	@$(VENV) -m tests.endurance.fuzz

compat: ready-dev ## drive the daemon with the clients people bring; print what works
	@$(VENV) -m tests.compat.table

lint: ready-dev ## lint, types and layers only
	@$(VENV) -m tools.check --no-tests

soak-kernel: ready-dev ## a million random steps through the scheduling kernel (STEPS=)
	@$(VENV) -m tools.soak_kernel $(if $(STEPS),--steps $(STEPS))

format: ready-dev ## format the code and mend what the linter can mend
	@$(VENV) -m ruff format .
	@$(VENV) -m ruff check --fix .

lock: ready-dev ## pin dependencies anew (make lock UPGRADE=--upgrade for newer ones)
	@$(VENV) -m tools.lock $(UPGRADE)

clean: ## remove .venv and caches; built llama.cpp wheels are kept
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

python:
	@command -v $(PYTHON) >/dev/null || { echo "missing: Python 3.11 or newer. Install with: sudo apt install python3 python3-venv g++"; exit 1; }

ready: python
	@$(PYTHON) -m tools.bootstrap

ready-dev: python
	@$(PYTHON) -m tools.bootstrap --dev
