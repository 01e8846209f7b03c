# Two commands: `make demo` and `make test`. Both set up .venv first (once; again when pyproject.toml or constraints.txt change).
#
#   PYTHON=python3.12 make test      another interpreter
#   PIP_INDEX_URL, PIP_FIND_LINKS    are honoured by pip as usual
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu make demo     a small CPU build of torch instead of the CUDA one

SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test lint bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "cinetune needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 setup" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/cinetune demo demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/table.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .hypothesis .ruff_cache .import_linter_cache
