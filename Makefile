# Two commands do everything: `make demo` sets up and runs the main job, `make test` sets up and runs the tests.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= demo

.PHONY: demo test proofs quick check format docs clean

demo: $(VENV)/.installed
	$(VENV)/bin/diptych demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto -m "not training"

proofs: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto -m training

quick: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n auto -m "not slow"

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/python tests/house.py

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("diptych needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing diptych into $(VENV) (PyTorch is large: a few minutes on a slow line)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing diptych and its test tools into $(VENV)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed

docs: $(VENV)/.installed-dev
	$(VENV)/bin/python docs/make_systems.py

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
