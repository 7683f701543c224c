# `make run` and `make test` do everything that is needed on a machine with Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What `make run` runs; e.g. make run DATASET=minari:mujoco/hopper/medium-v0 SET="improve.steps=100 seed=3"
SEED ?= 0
DATASET ?= collect:Hopper-v5?level=medium&steps=100000&seed=$(SEED)
PRESET ?= quick
SET ?=

# Many small tensors: one thread for each of two test processes is faster than two threads in each.
TEST_JOBS ?= 2
TEST_THREADS ?= 1
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
# The cluster that `make test-cluster` tries the chart on, and further options of tests/cluster/try_chart.py.
KUBECONFIG ?=
CLUSTER_ARGS ?=

.PHONY: help install run test test-cluster lint format docs-config docs-chart chart-pipelines clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with everything pinned in constraints.txt (once)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python >= 3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version 2>&1) is too old; expected Python >= 3.11 (make PYTHON=python3.12 ...)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

run: install ## Run the whole method (DATASET, PRESET, SEED, SET="key=value ...")
	$(BIN)/unio4 run --preset $(PRESET) --dataset '$(DATASET)' --seed $(SEED) $(foreach setting,$(SET),--set '$(setting)')

test: lint ## Check style, types and import arrows, then run all tests
	OMP_NUM_THREADS=$(TEST_THREADS) MKL_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_JOBS) $(PYTEST_ARGS)

test-cluster: install ## Try the chart on a cluster with KFP (KUBECONFIG=..., CLUSTER_ARGS="--namespace ...")
	$(BIN)/python tests/cluster/try_chart.py $(if $(KUBECONFIG),--kubeconfig '$(KUBECONFIG)') $(CLUSTER_ARGS)

lint: install ## Check style, types and import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

format: install ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-config: install ## Write docs/config.md from the settings' descriptions
	$(BIN)/unio4 config docs > docs/config.md.new
	mv docs/config.md.new docs/config.md

docs-chart: install ## Write the table of values in the chart's README from the comments of values.yaml
	$(BIN)/python charts/values_table.py

chart-pipelines: ## Copy the compiled pipelines into the chart
	cp pipelines/compiled/*.yaml charts/unio4/files/pipelines/

clean: ## Remove caches and build outputs; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find unio4_lib tests components pipelines benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
