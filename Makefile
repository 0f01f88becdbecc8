# Sets up its own environment from the project's files, then runs the program or its tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo gallery check test test-slow test-versions soak docs notebook clean

demo: .venv/installed
	$(BIN)/python -m randviz demo --out_dir=out/demo

gallery: .venv/installed
	$(BIN)/python -m randviz.experiments.gallery --out_dir=out/gallery

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=20

test-slow: .venv/installed
	XLA_FLAGS=--xla_backend_optimization_level=3 $(BIN)/python -m pytest -n auto --dist loadfile -m slow

# Under python3.11, python3.12 and python3.13, as far as they are there.
test-versions:
	$(PYTHON) -m checks.versions

MINUTES ?= 30
soak: .venv/installed
	$(BIN)/python -m checks --minutes=$(MINUTES)

# Material for MkDocs advertises its successor otherwise.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Executes the notebook of the documentation again, where the package has changed what it shows.
notebook: .venv/installed
	$(BIN)/python docs/notebook.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "randviz needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out site
