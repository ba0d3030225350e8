# make demo: convert a model and look at what it sees.  make test: lint, types, tests.  Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# plain 'torch' would pull gigabytes of CUDA packages where only a CPU is meant; TORCH_ARGS adds an index for others
SETUP := $(VENV)/.ready

.PHONY: demo test lint format types docs clean

$(SETUP): constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 $(TORCH_ARGS) -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

demo: $(SETUP)
	$(BIN)/python tools/demo.py --out out/demo

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(SETUP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(SETUP)
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n auto

docs: $(SETUP)
	$(BIN)/python tools/make_docs.py

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
