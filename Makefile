# Everything is run from here; CI and the README use the same targets. `make` prints them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTING := $(VENV)/.testing
TRITON := nvidia-pytriton==0.7.0 numpy==1.26.4 onnxruntime==1.32.0 pillow==12.0.0 flatbuffers==25.12.19 packaging==26.4 protobuf==6.33.6
# One thread a test worker: two workers with two threads each would fight over two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup export test test-full check lint format gpu bench docs lock clean

help: ## print the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## make the environment (.venv) with the locked versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("sam-deploy needs Python 3.11 to 3.13, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0] if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	@echo "making the environment in $(VENV): gigabytes, and some minutes the first time" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# For the tests and benchmarks: TensorRT's names (its libraries need a GPU, and are not there),
# OpenVINO and NNCF, a tritonserver in an environment of its own (it wants numpy 1), and the
# schemas of KServe and Kubernetes as their clients have them.
$(TESTING): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/tensorrt-10.16 tensorrt-cu13-bindings==10.16.1.11
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/tensorrt-11.4 tensorrt-cu13-bindings==11.4.0.106
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/openvino openvino==2026.4.1
	$(PYTHON) -m venv $(VENV)/triton
	$(VENV)/triton/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TRITON)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/kserve kserve==0.21.0 kubernetes==31.0.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check nncf==3.4.0
	@touch $(TESTING)

export: $(READY) ## the main job: export smt_t in FP16 to engines/ (again: ARGS=--force)
	$(BIN)/sam-export --model smt_t --fp16 $(ARGS)

test: $(TESTING) ## the tests (15 minutes on 2 cores at most)
	$(PYTEST) -m "not slow"

test-full: $(TESTING) ## all tests, the slow ones too
	$(PYTEST)

check: lint $(TESTING) ## lint, types and the fast tests (under 2 minutes)
	$(PYTEST) -m "not slow and not export and not long"

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu: ## what only a GPU can show: every engine's parity and speed there, with receipts
	@command -v nvidia-smi >/dev/null || { echo "error: this machine has no NVIDIA GPU (no nvidia-smi)" >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)-gpu
	grep -v '^onnxruntime==' requirements.lock > $(VENV)-gpu/lock
	$(VENV)-gpu/bin/python -m pip install --quiet -r $(VENV)-gpu/lock "onnxruntime-gpu[cuda,cudnn]"
	$(VENV)-gpu/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(VENV)-gpu/bin/python -m pip install --quiet "tensorrt-cu13>=10.13" || echo "note: TensorRT cannot be installed here; the others run" >&2
	$(VENV)-gpu/bin/python benchmarks/gpu.py $(ARGS)

bench: $(TESTING) ## what the published tables are made of, on this CPU and undisturbed
	$(BIN)/python benchmarks/forms.py --out benchmarks/results/forms-smt_t-x86-2core.json
	for model in smt_t smt_s smt_b smt_l; do PYTHONPATH=$(VENV)/openvino $(BIN)/python benchmarks/bars.py $$model || exit 1; done
	$(BIN)/python benchmarks/export_cost.py --out benchmarks/results/export-cost-x86-2core.json
	$(BIN)/python benchmarks/parity_cost.py --out benchmarks/results/parity-cost-x86-2core.json
	$(BIN)/python benchmarks/serving.py --out benchmarks/results/serving-x86-2core.json
	$(BIN)/python benchmarks/faults.py --out benchmarks/results/faults-x86-2core.json
	$(BIN)/python benchmarks/ray_node_loss.py --out benchmarks/results/ray-node-loss-x86-2core.json
	$(BIN)/python benchmarks/soak.py --out benchmarks/results/soak-x86-2core.json
	$(BIN)/python benchmarks/receipts.py
	$(BIN)/python benchmarks/import_time.py --out benchmarks/results/load-time-x86-2core.json

docs: $(READY) ## write the generated tables of README, export/ and engines/
	$(BIN)/python docs/generate.py

lock: ## resolve requirements.lock anew
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet "torch==2.13.0" ".[cpu,export,tensorrt-rtx,serve,ray,bench,dev]"
	{ echo "# Made by 'make lock'. Exact versions for the make targets and CI."; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude sam-deploy | sed -E 's/\+[a-z0-9.]+$$//'; } > requirements.lock
	rm -rf $(VENV)-lock

clean: ## remove the environment, caches and exported bundles (receipts stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find engines -mindepth 1 -maxdepth 1 ! -name README.md ! -name receipts -exec rm -rf {} +
