# Commands of this project. Each installs its dependencies; Python, make and internet access suffice.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv || echo .uv/bin/uv)
PYTEST := $(BIN)/python -m pytest
PAGE := supervisely_integration/gui/web

# What to train on: a folder in COCO, YOLO, Pascal VOC, LabelMe or Supervisely format.
# Empty: a sample set.
DATA ?=
# Additional options for the trainer, for example ARGS="--epochs 3".
ARGS ?=
# Test processes: tests wait for apps and servers for a third of the time.
WORKERS ?= $(shell echo $$(( $$(nproc) * 2 )))
# torch version for `make test-torch`.
TORCH ?= 2.15.0

.DEFAULT_GOAL := help
.PHONY: help install uv train train-cli gui page doctor test pytest test-fast test-torch check lint \
	ruff types fix lock audit bench proof gpu-bundle clean

help: ## list all commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo '  make train DATA=folder ARGS="--epochs 20"   your data, your settings'

install: $(VENV)/.installed ## create the environment with the pinned requirements

# The environment is up to date unless the pinned versions changed.
$(VENV)/.installed: requirements.txt dev_requirements.txt docker/requirements.lock pyproject.toml | uv
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --python $(BIN)/python -r dev_requirements.txt \
		--constraints docker/requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

uv:
	@command -v $(UV) >/dev/null || $(PYTHON) -m pip install --quiet --target .uv uv==0.13.8

train: install ## train the app on DATA or a generated sample dataset, with a local instance
	$(BIN)/rtdetrv2 local train $(if $(DATA),--data $(DATA),--sample) $(ARGS)

train-cli: install ## train on DATA without Supervisely
	$(BIN)/rtdetrv2 train $(if $(DATA),--data $(DATA),--sample) $(ARGS)

gui: install page ## open the page of the training app, with a local instance
	$(BIN)/rtdetrv2 local train --gui $(if $(DATA),--data $(DATA),--sample) $(ARGS)

page: $(PAGE)/node_modules/.package-lock.json ## fetch the libraries of the app page (needs npm)

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package.json $(PAGE)/package-lock.json
	@command -v npm >/dev/null || { echo "npm not found. It is needed once to fetch the libraries of the app page:" \
		"install Node.js 18 or newer (for example: sudo apt install npm) and run the command again." \
		"'make train' does not need it." >&2; exit 1; }
	cd $(PAGE) && npm ci --loglevel=error
	@touch $@

doctor: install ## check DATA and report problems
	$(BIN)/rtdetrv2 doctor $(if $(DATA),--data $(DATA)) $(ARGS)

# Without npm, the page tests are skipped with a reason.
test: ruff $(if $(shell command -v npm),page) ## run all checks and tests
	@$(MAKE) --no-print-directory -j2 types pytest

# Beside mypy, which uses one processor.
pytest: $(VENV)/.compiled
	$(PYTEST) -n $(WORKERS) --dist worksteal $(ARGS)

test-fast: $(VENV)/.compiled ## run the fast tests
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

# One process compiles all modules and tests; the test processes would do that at the same time.
# Errors are reported by the tests themselves.
$(VENV)/.compiled: $(VENV)/.installed
	@echo "Compiling modules and tests ..."
	@-$(PYTEST) -q --collect-only >/dev/null 2>&1
	@touch $@

test-torch: $(VENV)-torch-$(TORCH)/.installed ## run the tests with another torch: TORCH=2.15.0
	$(VENV)-torch-$(TORCH)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Replaces the pins of torch and torchvision; torchvision's wheels require a matching torch version.
$(VENV)-torch-$(TORCH)/.installed: requirements.txt dev_requirements.txt | uv
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' $(@D)
	sed -E '/^-r/d; s/^torch==.*/torch==$(TORCH)/; s/^torchvision==.*/torchvision/' $^ \
		> $(@D)/requirements.txt
	VIRTUAL_ENV=$(@D) $(UV) pip install --quiet --python $(@D)/bin/python -r $(@D)/requirements.txt
	@touch $@

check: lint ## check format, lint, types and layers
	$(PYTEST) -q tests/architecture

lint: ruff types

ruff: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

fix: install ## format and fix lint errors
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | uv ## update docker/requirements.lock after changing requirements.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--output-file docker/requirements.lock requirements.txt

# --strict: fails if the advisories of a package cannot be read.
audit: | uv ## check the locked packages and the page libraries for known vulnerabilities
	$(UV) tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r docker/requirements.lock
	cd $(PAGE) && npm audit --package-lock-only

bench: install ## compare speed with public implementations
	$(BIN)/python -m benchmarks $(ARGS)

proof: install | uv ## compare the accuracy of training recipes, with ARGS="--peers" also of other trainers
	$(BIN)/python -m benchmarks.accuracy $(ARGS)

# Wheels for Python 3.12 on x86-64, without dependencies, which that machine provides.
gpu-bundle: ## download packages for python -m benchmarks.gpu on a machine without internet access
	rm -rf .gpu-bundle
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
		--implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
		--platform manylinux2014_x86_64 -d .gpu-bundle -r benchmarks/gpu-requirements.txt

clean: ## remove files created by make; keeps data and results
	rm -rf $(PAGE)/node_modules .venv .venv-torch-* .venv-peer-* .uv .gpu-bundle .mypy_cache .pytest_cache .ruff_cache
