# make demo    compress a model of models/ into build/ and print what was done
# make test    all tests
# make check   formatting, lint, types
# make docs    the documentation as a site, in build/site
# make robustness   onnx's own tests, random graphs, broken files, killed runs: all of them, with counts (a quarter of an hour on one core)
# make check-report   open a report in Debian's chromium (installed by apt-get where it is missing) and look at it
#
# Needs Python 3.11 or newer, git and make; everything else goes into .venv. Another Python: make PYTHON=python3.13 test

PYTHON ?= python3
VENV ?= .venv
MODEL ?= mnist_deepnn
RATIO ?= 0.3
WORKERS ?= 2

BIN := $(VENV)/bin
# One thread a test process: the arrays are small, and $(WORKERS) processes already fill the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test check check-report docs robustness format clean

demo: $(VENV)/demo.stamp
	@mkdir -p build
	$(BIN)/onnx-tropnnc models/$(MODEL).onnx build/$(MODEL).onnx --ratio $(RATIO)

test: $(VENV)/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

robustness: $(VENV)/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m tests.robustness $(ROBUSTNESS_ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --cache-dir .mypy_cache/3.11
	$(BIN)/mypy --cache-dir .mypy_cache/3.13 --python-version 3.13

check-report: $(VENV)/dev.stamp
	command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	$(BIN)/python tests/browser_check.py chromium

docs: $(VENV)/docs.stamp
	$(BIN)/python docs/write_operators.py
	$(BIN)/mkdocs build --strict

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Installed editable: a stamp is renewed only when pyproject.toml changes.
$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[cpu]'
	@touch $@

$(VENV)/docs.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev]'
	@touch $@
