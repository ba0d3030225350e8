# 'make' alone lists what can be made. Every target sets up .venv first, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
# Plain 'torch' would pull gigabytes of CUDA packages where only a CPU is meant; TORCH_ARGS adds an index for others.
SETUP := $(VENV)/.ready
DOCS := $(VENV)/.docs

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-gpu fuzz kill lint format types docs lowest clean

help:  ## list of targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(SETUP): constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch $(TORCH_ARGS) -c constraints.txt
	$(PIP) -e '.[dev]' -c constraints.txt
	touch $@

$(DOCS): $(SETUP)
	$(PIP) -e '.[docs]' -c constraints.txt
	touch $@

demo: $(SETUP)  ## convert the embedded model, predict on a photograph, save the pictures
	$(BIN)/python tools/demo.py --out out/demo

test: lint types  ## lint, types and every test that needs no GPU
	$(BIN)/python -m pytest -n auto -m "not gpu"

test-fast: $(SETUP)  ## the tests of a minute: no recorded cases, no real data, nothing slow or long
	$(BIN)/python -m pytest -n auto -m "not slow and not long and not gpu and not golden and not data"

test-gpu: $(SETUP)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

N ?= 20000
fuzz: $(SETUP)  ## N damaged files (20000) through every reader; what fails is kept in out/fuzz
	$(BIN)/python -m tests.fuzz --n $(N)

kill: $(SETUP)  ## 300 kills of the long commands, at random moments
	$(BIN)/python -m tests.kill --n 300

lint: $(SETUP)  ## ruff: faults and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(SETUP)  ## ruff: write the format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(SETUP)  ## mypy --strict on both packages and the tests
	$(BIN)/mypy

docs: $(DOCS)  ## the generated pages, and the site with the API reference in out/site
	$(BIN)/python tools/make_docs.py
	$(BIN)/mkdocs build --strict --quiet --site-dir out/site

LOWEST_TORCH ?= constraints.txt
lowest:  ## the quick tests with the lowest versions that setup.cfg promises; torch too with LOWEST_TORCH=lowest
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tools/lowest_versions.py --torch $(LOWEST_TORCH) >$(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install -q --disable-pip-version-check -e '.[test,baseline]' $(TORCH_ARGS) -c $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pytest -n auto -W default -m "not slow and not long and not gpu and not golden and not data"

clean:  ## remove what was made; .venv stays
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
