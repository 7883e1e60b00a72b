# Two commands do everything: `make demo` and `make test`. The first run makes the virtual environment.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
IMAGES ?= examples/photos
OUT    ?= out
STAMP  := $(VENV)/.ready

# How many times slower than usual this machine is: what tests wait for may take so many times longer.
SLOWNESS ?= $(or $(PENSTOCK_SLOWNESS),1)
# Tests wait as often as they compute: more of them than cores.
WORKERS ?= 3
PYTEST := PENSTOCK_SLOWNESS=$(SLOWNESS) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -o faulthandler_timeout=$$((300 * $(SLOWNESS)))

SEEDS  ?= 10
SEARCH ?= 10000

.PHONY: help demo demo-video test suite fast nightly pythons lint types mypy pyright storm bench clean

help:
	@echo "make demo [IMAGES=folder]   embed a folder of pictures, search it, write a contact sheet"
	@echo "make demo-video             make clips of these pictures, take their frames, find those that are there twice"
	@echo "make test [SLOWNESS=4]      checkers and all tests, on a machine so many times slower than usual"
	@echo "make fast, make nightly     only the fast tests; only those that take minutes or gigabytes"
	@echo "make pythons                all tests with each of Python 3.11, 3.12 and 3.13 that is installed"
	@echo "make lint types             ruff; mypy and pyright"
	@echo "make storm [SEEDS=200]      jobs under random faults, and long searches for orders that break something"
	@echo "make bench                  every figure of the README, as ratios against its peer"
	@echo "make clean                  remove the virtual environment and what the demo made"

$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev,jpeg,lance,onnx,parquet,report,s3,triton,videos,volumes,yt-dlp]"
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py "$(IMAGES)" --out "$(OUT)"

demo-video: $(STAMP)
	$(BIN)/python examples/demo_video.py "$(IMAGES)" --out "$(OUT)"

test: lint types suite

fast: $(STAMP)
	$(PYTEST) -m "not slow and not nightly"

nightly: $(STAMP)
	$(PYTEST) -m nightly

# One after the other; each in an environment of its own.
pythons:
	for version in 3.11 3.12 3.13; do \
	  if python$$version --version >/dev/null 2>&1; then \
	    $(MAKE) --no-print-directory suite PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	  else echo "python$$version is not installed: left out"; fi; \
	done

suite: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)
	$(MAKE) --no-print-directory -j 2 mypy pyright

mypy: $(STAMP)
	$(BIN)/mypy -p penstock && $(BIN)/mypy tests

pyright: $(STAMP)
	$(BIN)/pyright

# A failing seed says how to run it again; the searches tell their smallest failing example.
storm: $(STAMP)
	$(BIN)/python -m penstock.tests.storm --seeds $(SEEDS)
	PENSTOCK_EXAMPLES=$(SEARCH) $(BIN)/python -m pytest -n 2 -o faulthandler_timeout=0 \
	  tests/test_shm_machine.py tests/test_journal_machine.py tests/test_engine_random_graphs.py

bench: $(STAMP)
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[bench]"
	$(BIN)/python -m penstock.bench all

clean:
	rm -rf $(VENV) $(OUT)
