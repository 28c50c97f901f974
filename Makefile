# make demo   the whole method on drawn data, on a CPU, with pictures and scores
# make test   every test
# make lint   the linters
# make test-demo   the page of tools/web_demo.py in a browser; gradio is put beside the environment's own packages
# make fuzz   spoilt files for every reader, thousands of them (FUZZ=2000 for each)
# make learn-check   trains the demo for two minutes and compares its scores with those of five seeds
# make soak   20 000 steps that are killed, stopped and starved all the time
# VENV=path   an environment to share between clones

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
FUZZ ?= 2000

.PHONY: demo test test-demo lint fuzz soak learn-check

demo: $(VENV)/runtime-installed
	$(BIN)/python tools/demo.py

test: $(VENV)/development-installed
	$(BIN)/python -m pytest

test-demo: $(VENV)/demo-installed
	PYTHONPATH=$(VENV)/demo $(BIN)/python -m pytest tests/drawing/test_web_demo.py

lint: $(VENV)/development-installed
	$(BIN)/ruff check --quiet .

fuzz: $(VENV)/development-installed
	CLIPGAN_FUZZ=$(FUZZ) $(BIN)/python -m pytest -q tests/fuzz

soak: $(VENV)/runtime-installed
	$(BIN)/python bench/soak.py

learn-check: $(VENV)/runtime-installed
	$(BIN)/python bench/learn_check.py

$(VENV)/runtime-installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/development-installed: requirements-dev.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/runtime-installed

$(VENV)/demo-installed: requirements-demo.txt $(VENV)/development-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(VENV)/demo -r requirements-demo.txt
	touch $@
