# The verbs of this project. Each brings its own environment: Python, make and internet are enough.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv || echo .uv/bin/uv)
PYTEST := $(BIN)/python -m pytest
PAGE := supervisely_integration/gui/web

# What to train on: a folder in COCO format; `train` and `gui` also take Supervisely, YOLO and VOC.
# Empty: a sample set.
DATA ?=
# More options for the trainer, for example ARGS="-u epoches=3" (see `make help`).
ARGS ?=
# The torch that `make test-torch` tests against.
TORCH ?= 2.15.0

.DEFAULT_GOAL := help
.PHONY: help install uv train train-cli gui page doctor test test-fast test-torch check fix lock \
	bench gpu-bundle clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo '  make train DATA=folder ARGS="-u epoches=20"   your COCO data, your settings'

install: $(VENV)/.installed ## create the environment with the pinned requirements

# Only what the pins say decides whether the environment is current, so a second call starts at once.
$(VENV)/.installed: requirements.txt dev_requirements.txt docker/requirements.lock | uv
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --python $(BIN)/python -r dev_requirements.txt \
		--constraints docker/requirements.lock
	@touch $@

uv:
	@command -v $(UV) >/dev/null || $(PYTHON) -m pip install --quiet --target .uv uv==0.13.8

train: install ## train on DATA (or on a generated sample set): the app, on an instance of its own
	$(BIN)/python -m supervisely_integration.local train $(if $(DATA),--data $(DATA),--sample) $(ARGS)

train-cli: install ## the engine alone, without the app
	$(BIN)/python -m rtdetrv2_pytorch.tools.train $(if $(DATA),--data $(DATA),--sample) $(ARGS)

gui: install page ## the app's page on an instance of its own, to choose and start there
	$(BIN)/python -m supervisely_integration.local train --gui $(if $(DATA),--data $(DATA),--sample) $(ARGS)

page: $(PAGE)/node_modules/.package-lock.json ## fetch what the app's page is made of (needs npm)

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package.json $(PAGE)/package-lock.json
	@command -v npm >/dev/null || { echo "The app's page needs npm, once, to fetch Vue and Element UI:" \
		"install Node.js 18 or newer (for example: sudo apt install npm), then say this again." \
		"Without it, 'make train' trains from the command line." >&2; exit 1; }
	cd $(PAGE) && npm ci --loglevel=error
	@touch $@

doctor: install ## say what is wrong with DATA, and what the trainer does about it
	$(BIN)/python -m rtdetrv2_pytorch.tools.doctor $(if $(DATA),--data $(DATA)) $(ARGS)

# Without npm the tests of the page are skipped, and say so.
test: check $(if $(shell command -v npm),page) ## check, then all tests
	$(PYTEST) -n auto --dist worksteal $(ARGS)

test-fast: install ## the quick tests only
	$(PYTEST) -n auto --dist worksteal -m "not slow" $(ARGS)

test-torch: $(VENV)-torch-$(TORCH)/.installed ## the tests against another torch: TORCH=2.15.0
	$(VENV)-torch-$(TORCH)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

# Two pins give way: torchvision's wheels say which of them belongs to a torch.
$(VENV)-torch-$(TORCH)/.installed: requirements.txt dev_requirements.txt | uv
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.13' $(@D)
	sed -E '/^-r/d; s/^torch==.*/torch==$(TORCH)/; s/^torchvision==.*/torchvision/' $^ \
		> $(@D)/requirements.txt
	VIRTUAL_ENV=$(@D) $(UV) pip install --quiet --python $(@D)/bin/python -r $(@D)/requirements.txt
	@touch $@

check: install ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/architecture

fix: install ## format and repair what a tool can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | uv ## write docker/requirements.lock anew, after a change of requirements.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--output-file docker/requirements.lock requirements.txt

bench: install ## measure against public implementations, side by side
	$(BIN)/python -m benchmarks $(ARGS)

# Wheels for Python 3.12 on x86-64, without what they need: that machine has the rest.
gpu-bundle: ## collect in .gpu-bundle what a bare GPU machine lacks for python -m benchmarks.gpu
	rm -rf .gpu-bundle
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
		--implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
		--platform manylinux2014_x86_64 -d .gpu-bundle -r benchmarks/gpu-requirements.txt

clean: ## remove what make created, not your data or results
	rm -rf $(PAGE)/node_modules .venv .venv-torch-* .uv .gpu-bundle .mypy_cache .pytest_cache .ruff_cache
