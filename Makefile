# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# One pinned CPU build: an open range would make pip fetch gigabytes of CUDA packages.
TORCH  ?= torch==2.13.0

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/diagnostics demo --html demo-report.html --json demo-report.json

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
