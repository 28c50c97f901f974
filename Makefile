# make demo   the whole method on drawn data, on a CPU, with pictures and scores
# make test   every test
# make lint   the linters
# VENV=path   an environment to share between clones

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test lint

demo: $(VENV)/runtime-installed
	$(BIN)/python tools/demo.py

test: $(VENV)/development-installed
	$(BIN)/python -m pytest

lint: $(VENV)/development-installed
	$(BIN)/ruff check --quiet .

$(VENV)/runtime-installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/development-installed: requirements-dev.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/runtime-installed
