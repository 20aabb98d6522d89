# Everything from a bare machine: Python >= 3.10 with pip and venv, nothing else.
#   make demo    set up, then draw, edit and describe a picture with the shipped model (offline once set up)
#   make test    set up, then run every test
#   make check   ruff, pyright and the fast tests
#   make bench   time of one denoising step against its floor and a plain implementation
#   make clean   remove what this file made
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# With -n 2 each worker has one thread: the suite is many small runs, and two cores are the least we plan for.
TEST_FLAGS ?= -n 2

.PHONY: demo test check bench clean setup setup-dev

demo: setup
	@mkdir -p $(DEMO) && rm -f $(DEMO)/drawn.png $(DEMO)/edited.png $(DEMO)/described.txt
	$(BIN)/og2 generate "a large red circle in the middle on a light grey background" --seed 1 --output $(DEMO)/drawn.png
	$(BIN)/og2 edit "make the red circle blue" --input $(DEMO)/drawn.png --seed 1 --output $(DEMO)/edited.png
	$(BIN)/og2 describe $(DEMO)/drawn.png > $(DEMO)/described.txt
	@cat $(DEMO)/described.txt
	@echo "The demo is in $(DEMO)/: drawn.png, edited.png and described.txt."

test: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_FLAGS)

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_FLAGS) -m "not slow"

bench: setup
	$(BIN)/python benchmarks/denoise_step.py

clean:
	rm -rf $(VENV) $(DEMO) build .pytest_cache .ruff_cache .hypothesis src/*.egg-info

setup: $(VENV)/.setup
setup-dev: $(VENV)/.setup-dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "og2 needs Python 3.10 or newer with the venv module: install it, or make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): torch and the other libraries, a few minutes ..."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.setup-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): torch, the other libraries and the test tools, a few minutes ..."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,eval,train]"
	@touch $@ $(VENV)/.setup
