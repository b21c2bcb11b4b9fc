# Real Estate OS. Needs Python 3.11 or newer and make; everything else comes into .venv.
# Paths stay relative and programs run as modules, so that the folder may have a space in its name.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
ARGS ?=

# Each of the many processes would otherwise compile the source anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run dev test check coverage bench faults load hostile demo reset lock audit

run: .venv/run.stamp ## the service with all its parts, on http://127.0.0.1:8000
	@exec $(PY) -m reos run --with-parent

dev: .venv/run.stamp ## the same, started again when a file changes
	@exec $(PY) -m reos run --with-parent --reload

test: .venv/dev.stamp ## all tests, on all cores; ARGS="-k name" for some, ARGS="-n 0 tests/test_x.py" in one process
	@$(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/dev.stamp ## style, types, and who may import whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/test_imports.py

coverage: .venv/dev.stamp ## the tests, and which lines they did not reach
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest $(ARGS)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

bench: .venv/dev.stamp ## what the service costs, as ratios to a bare handler; ARGS="--only PUT --rounds 8"
	@PYTHONPATH=tests $(PY) -m tools.bench $(ARGS)

faults: .venv/dev.stamp ## ten minutes under load while parts are killed, and what is true then; ARGS="--minutes 1 --seed 7"
	@PYTHONPATH=tests $(PY) -m tools.faults $(ARGS)

load: .venv/dev.stamp ## slow clients, many streams, storms, a rolling restart; ARGS="slow streams" for some of them
	@PYTHONPATH=tests $(PY) -m tools.load $(ARGS)

hostile: .venv/dev.stamp ## hostile input in its long form; ARGS=tests/hostile/test_fuzz_lists.py for some of it
	@HOSTILE=long $(PY) -m pytest -n 0 -s $(or $(ARGS),tests/hostile)

demo: .venv/run.stamp ## a guided tour through the API of the running service; ARGS="--yes" without pauses
	@exec $(PY) tools/demo $(ARGS)

reset: .venv/run.stamp ## remove DATA_DIR with the embedded database, after asking
	@$(PY) -m reos reset

lock: .venv/dev.stamp ## the exact versions of all packages; ARGS=--upgrade for the newest
	@$(PY) tools/lock.py $(ARGS)

audit: .venv/dev.stamp ## which of them have known weaknesses
	@$(PY) -m uv tool run --quiet pip-audit==2.10.1 --disable-pip --require-hashes -r requirements.lock $(ARGS)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (set PYTHON=...)."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older (set PYTHON=...)."; exit 1; }
	@"$(PYTHON)" -m venv .venv

.venv/run.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing into .venv ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/run.stamp
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
