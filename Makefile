# Two commands for a fresh machine: `make quickstart` and `make test`. The rest is for contributors.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= quickstart
BIN = $(VENV)/bin
SOURCES = *.py core train eval checkpoints hub tests tools benchmarks experiments

.PHONY: quickstart install dev test test-all fuzz test-gpu lint format bench bench-gpu clean

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

fuzz: dev  ## 10,000 new examples of torn and changed files, names and texts a target; half an hour
	LANGSAMP_FUZZ=$${LANGSAMP_FUZZ:-10000} $(BIN)/python -m pytest tests/test_fuzz.py --numprocesses 2

test-all: dev  ## everything
	$(BIN)/python -m pytest --numprocesses 2

# a GPU machine may have torch and no network: its own Python, and a link by which it finds the package
test-gpu bench-gpu: export PYTHONPATH := $(CURDIR)/build/path:$(PYTHONPATH)

build/path/langsamp:
	mkdir -p build/path && ln -sfn $(CURDIR) $@

test-gpu: build/path/langsamp  ## what needs an NVIDIA GPU, with the packages that $(PYTHON) has
	$(PYTHON) -m pytest -m gpu -p no:cacheprovider

lint: dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: dev  ## speed and memory beside the stock way: medians and spread, in alternation
	$(BIN)/python -m benchmarks.run

bench-gpu: build/path/langsamp  ## one NVIDIA GPU: roofline, training step, whole runs, sentence vectors; under eight minutes
	$(PYTHON) -m benchmarks.gpu

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
