# Two commands for a fresh machine: `make quickstart` and `make test`. The rest is for contributors.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= quickstart
BIN = $(VENV)/bin
SOURCES = *.py core train eval checkpoints hub tests tools benchmarks experiments

.PHONY: quickstart install dev test test-all test-gpu lint format bench bench-gpu clean

quickstart: install  ## install, then run the main job on the embedded corpus
	$(BIN)/langsamp quickstart --output $(OUTPUT)

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,onnx]'
	touch $@ $(VENV)/.installed

test: dev  ## the test suite, without what takes longer than about 8 seconds a test
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2

test-all: dev  ## everything
	$(BIN)/python -m pytest --numprocesses 2

test-gpu:  ## what needs an NVIDIA GPU, in the environment there is (PYTHON=...): nothing is installed
	$(PYTHON) -m pytest -m gpu -n 0

lint: dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: dev  ## speed and memory beside the stock way: medians and spread, in alternation
	$(BIN)/python -m benchmarks.run

bench-gpu:  ## one NVIDIA GPU: roofline, training step, whole runs, sentence vectors; under eight minutes
	$(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
