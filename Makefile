# `make demo` and `make test` create .venv, install with the tested versions, and run.
# Nothing is installed again while pyproject.toml and constraints.txt stay as they are.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow lint format documents docs wheel clean help

help:
	@echo "make demo       train, search, fine-tune, report: runs/demo/report.html"
	@echo "make test       the default tests"
	@echo "make test-slow  tests of minutes, and those that need a browser"
	@echo "make lint       ruff and pyright"
	@echo "make documents  figures of the documents from docs/results"
	@echo "make docs       the documentation site: site/index.html"
	@echo "make wheel      dist/prefsearch-*.whl"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required, found " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/prefsearch demo --resume

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

documents: $(INSTALLED)
	$(BIN)/python benchmarks/harness/documents.py

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

wheel: $(INSTALLED)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build site
