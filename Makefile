# make demo          compress a model of models/ into build/ and print a report
# make test          run all tests
# make check         check formatting, lint rules and types
# make docs          build the documentation as a site, in build/site
# make lock          write constraints.txt with the newest versions; the targets above install the versions that it lists
# make test-newest   run all tests in a separate environment with the newest version of every dependency
# make test-lowest   run all tests with the lowest versions that pyproject.toml allows
# make robustness    run onnx's own tests, random graphs, broken files and killed runs, and print counts (a quarter of an hour on one core)
# make check-report  open a report in Debian's chromium (installed with apt-get if missing) and check the page
# make check-wheel   build a source distribution and a wheel, install the wheel into a fresh environment and run the command
#
# Needs Python 3.11 or newer, git and make; everything else is installed into .venv. To use another Python: make PYTHON=python3.13 test

PYTHON ?= python3
VENV ?= .venv
# The versions that everything is installed in; empty: the newest ones.
CONSTRAINTS ?= constraints.txt
MODEL ?= mnist_deepnn
RATIO ?= 0.3
WORKERS ?= 2

BIN := $(VENV)/bin
COMMA := ,
# One thread a test process: the arrays are small, and $(WORKERS) processes already fill the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test test-newest test-lowest check check-report check-wheel docs lock robustness format clean

demo: $(VENV)/demo.stamp
	@mkdir -p build
	$(BIN)/onnx-tropnnc models/$(MODEL).onnx build/$(MODEL).onnx --ratio $(RATIO)

test: $(VENV)/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-newest:
	rm -rf build/newest
	$(MAKE) test VENV=build/newest CONSTRAINTS=

# mypy is left out: the code is written for the types that the locked numpy declares.
test-lowest:
	rm -rf build/lowest
	mkdir -p build
	$(PYTHON) .ci/lowest_versions.py cpu report dev docs >build/lowest.txt
	$(MAKE) docs test VENV=build/lowest CONSTRAINTS=build/lowest.txt
	build/lowest/bin/ruff format --check .
	build/lowest/bin/ruff check .

robustness: $(VENV)/dev.stamp
	$(ONE_THREAD) $(BIN)/python -m tests.robustness $(ROBUSTNESS_ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --cache-dir .mypy_cache/3.11
	$(BIN)/mypy --cache-dir .mypy_cache/3.13 --python-version 3.13

check-report: $(VENV)/dev.stamp
	command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	mkdir -p build/axe
	test -f build/axe/package/axe.min.js || (cd build/axe && npm pack --silent axe-core && tar xzf axe-core-*.tgz package/axe.min.js) || echo "axe-core cannot be fetched: contrast is checked, its other rules are not"
	$(BIN)/python tests/browser_check.py chromium $$(ls build/axe/package/axe.min.js 2>/dev/null)

# Without isolation, so that nothing but the tools and what the wheel itself requires is fetched.
check-wheel:
	rm -rf build/wheel
	$(PYTHON) -m venv build/wheel/tools
	build/wheel/tools/bin/python -m pip install --quiet build 'setuptools>=77.0.1'
	build/wheel/tools/bin/python -m build --no-isolation --outdir build/wheel/dist
	$(PYTHON) -m venv build/wheel/user
	build/wheel/user/bin/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) "$$(ls build/wheel/dist/*.whl)[cpu,report]"
	cd build/wheel && user/bin/onnx-tropnnc ../../models/mnist_lenet.onnx out.onnx --ratio 0.3 --report out.html
	ls -l build/wheel/dist build/wheel/out.onnx build/wheel/out.html

docs: $(VENV)/docs.stamp
	$(BIN)/python docs/write_operators.py
	$(BIN)/python docs/write_options.py
	$(BIN)/mkdocs build --strict

# A fresh environment, so that what the lock file pins is what a user's pip would choose today.
lock:
	rm -rf build/lock
	$(MAKE) build/lock/dev.stamp build/lock/docs.stamp VENV=build/lock CONSTRAINTS=
	{ echo "# Versions that make installs and tests with; written by: make lock"; \
	build/lock/bin/python -m pip freeze --all --exclude pip --exclude onnx-tropnnc; } >constraints.txt

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Installed editable: a stamp is renewed only when pyproject.toml or the locked versions change. setuptools comes first and
# builds without isolation, because pip would fetch its newest version for an isolated build whatever the constraints say.
INSTALL = $(BIN)/python -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS))
define install
$(INSTALL) --upgrade setuptools
$(INSTALL) --no-build-isolation --editable '.[$(1)]'
@touch $@
endef

$(VENV)/demo.stamp: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call install,cpu)

$(VENV)/docs.stamp: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call install,docs)

$(VENV)/dev.stamp: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(call install,cpu$(COMMA)dev)
