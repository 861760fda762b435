# Two commands for people: `make demo` and `make test`. Each makes its own environment first.
#
#   make demo                   set-up, then the whole chain on the built-in data
#   make test                   set-up, then every test
#   make check                  set-up, then format, lint, layers and types
#   make test WORKERS=1         tests in one process
#   make demo TORCH=cuda        the CUDA build of torch (the choice where nvidia-smi works)
#   make demo PYTHON=python3.12 another interpreter (3.11 or newer)

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= recipes/demo.yaml
# One more than the cores of a small machine: a fifth of the time tests wait for processes of theirs.
WORKERS ?= 3
TORCH_VERSION := 2.13.0
TORCH ?= $(shell nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
# Threads that spin for ever slow each other down many times over on a busy machine; threads that
# never spin halve the speed of small products on a quiet one. A short spin does neither.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 20000
export TOKENIZERS_PARALLELISM := false
# Where it is set, every process compiles the whole package and every test again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-demo
	$(BIN)/limbeck run $(RECIPE)

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.ready-test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	$(BIN)/pyright --pythonpath $(BIN)/python > $(VENV)/types.log || { cat $(VENV)/types.log; exit 1; }

# Torch first and pinned: asked for by name alone, it brings gigabytes of CUDA libraries along.
# Not compiled here: Python compiles a file when it is first imported, and most of them never are.
PIP_INSTALL := $(BIN)/pip install -qq --no-compile
$(VENV)/.ready-demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "limbeck needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cuda)
	$(PIP_INSTALL) torch==$(TORCH_VERSION)
else
	$(PIP_INSTALL) torch==$(TORCH_VERSION)+cpu 2>/dev/null || \
	  $(PIP_INSTALL) --index-url $(CPU_INDEX) torch==$(TORCH_VERSION)+cpu
endif
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[train,data,evaluate]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-demo
	$(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs
