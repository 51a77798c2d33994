# From a fresh clone:  make demo  and  make test.  Both set up .venv first; the second time that takes no time.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow lint format clean

help:
	@echo "make demo    fix a small transformer, in PyTorch and in ONNX, and print what was found, fixed and certified"
	@echo "make test    the test suite, then ruff, mypy and pyright"
	@echo "make slow    the long reproductions that 'make test' leaves out"
	@echo "make lint    ruff, mypy --strict, pyright strict"
	@echo "make format  rewrite the sources in the project's format"

demo: $(STAMP)
	@$(BIN)/python examples/00_demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS)
	@$(MAKE) --no-print-directory lint

slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Installed when this file is newer than what says what to install.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV)" && $(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@
