# `make` alone lists the targets. Everything runs in .venv, which `make setup` fills from
# requirements.lock; the targets that need it call it themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What dvc.yaml and DVC's queue workers call as `python` and `dvc` is the environment's own.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The environment is made anew when one of these changes: the Python, the folder (an environment
# cannot be moved), the lock. Time stamps would not do: git gives every checked-out file a new one.
KEY := $(shell { $(PYTHON) -VV; pwd; cat requirements.lock; } 2>&1 | cksum | cut -d ' ' -f 1)
LOCKED := $(VENV)/locked-$(KEY)
READY := $(VENV)/ready-$(KEY)

.PHONY: help setup reproduce push pull share test lint format sweep scaling compare bench-study \
    bench-attribution bench-sweep bench-faults verify-reproduction audit lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	| awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

setup: $(READY) ## Make .venv and install the locked packages, where something changed

reproduce: setup ## Run the study: every stage whose inputs, code or params changed
	$(BIN)/dvc repro

push: setup ## Store the results' artifacts in the remote
	$(BIN)/circuitdrift push

pull: setup ## Put the committed results' artifacts in place, without computing
	$(BIN)/circuitdrift pull

share: setup ## Push an experiment and its artifacts for colleagues: make share NAME=exp
	$(BIN)/circuitdrift share '$(NAME)'

# Two processes of one thread: torch's own threads get in each other's way where cores are taken.
TEST_WORKERS := 2
test: setup ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	    --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

lint: setup ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# WORKERS=2: so many experiments at a time; as many as fit where it is not given.
sweep: setup ## Run the experiments of sweep.yaml that are not finished
	$(BIN)/circuitdrift sweep $(if $(WORKERS),--workers $(WORKERS))

scaling: setup ## Write reports/scaling from the sweep's experiments
	$(BIN)/circuitdrift scaling

# A plain `dvc exp show` has a column for every param and every file of code. Experiments stand
# under the commit that they were derived from, which need not be the last one.
BASELINES = $(sort HEAD $(shell git for-each-ref --format='%(refname)' refs/exps \
    | sed -nE 's,^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/.+,\1\2,p'))
compare: setup ## Compare experiments: what varied and what came of it, best accuracy first
	$(BIN)/dvc exp show $(addprefix --rev=,$(BASELINES)) --hide-workspace --only-changed \
	    --drop '^(Created|State|Executor|(data|models|reports|src)/|dvc.yaml|(reports/metrics/.*:)?(mapped|shuffled|unrelated|base)[.-])' \
	    --sort-by reports/metrics/study.json:accuracy --sort-order desc

bench-study: setup ## Run every stage afresh in a temporary clone: wall time and peak memory
	$(BIN)/python benchmarks/study.py

bench-attribution: setup ## Time the sweep against circuit-tracer; write reports/benchmarks (half an hour)
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/effects.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/curves.py

bench-sweep: setup ## Time a few experiments of the sweep with 1 and with 2 workers
	$(BIN)/python benchmarks/sweep.py

PROFILE := default
VARIATIONS := elsewhere reversed threads

# On two cores every run of the study takes about twenty minutes, so these take an hour and a half;
# PROFILE=tiny takes minutes, VARIATIONS=elsewhere is the shortest that means something.
verify-reproduction: setup ## Run the study again in clean clones; write reports/reliability
	$(BIN)/python benchmarks/verify_reproduction.py --profile $(PROFILE) --variations $(VARIATIONS)

bench-faults: setup ## Kill, corrupt and fill up the tiny study; write reports/reliability
	$(BIN)/python benchmarks/faults.py

$(LOCKED):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	|| { echo "$$($(PYTHON) -V) found, Python 3.10, 3.11 or 3.12 needed:" \
	     "make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	    --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

# One lock for Python 3.10 to 3.12: a newer release that has left 3.10 behind stands beside an
# older one, told apart by a marker. Pins stay as they are unless UPGRADE=--upgrade is given.
# Left out: the CUDA packages that torch's CUDA build pins by itself. pip adds them where it
# picks that build, and a machine with torch's CPU build never sees them.
CUDA := cuda-bindings cuda-pathfinder cuda-toolkit triton $(addprefix nvidia-,cublas cuda-cupti \
    cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 \
    nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
UV := 0.13.9
UPGRADE :=

lock: ## Resolve pyproject.toml's requirements into requirements.lock
	set -e; tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	$(PYTHON) -m venv "$$tool"; \
	"$$tool/bin/python" -m pip install --disable-pip-version-check --quiet uv==$(UV); \
	UV_CUSTOM_COMPILE_COMMAND='make lock' "$$tool/bin/uv" pip compile pyproject.toml --quiet \
	    --extra dev --universal --python-version 3.10 --no-annotate $(UPGRADE) \
	    $(addprefix --no-emit-package ,$(CUDA)) --output-file requirements.lock

# What is accepted, and why, stands in docs/security.md. --strict: a package that the service does
# not know, or a service that does not answer, is a failure and not a clean bill.
PIP_AUDIT := 2.10.1
ACCEPTED := CVE-2025-69872

audit: ## Ask PyPI which locked packages have known vulnerabilities
	set -e; tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	$(PYTHON) -m venv "$$tool"; \
	"$$tool/bin/python" -m pip install --disable-pip-version-check --quiet pip-audit==$(PIP_AUDIT); \
	"$$tool/bin/pip-audit" --strict --requirement requirements.lock --no-deps --disable-pip \
	    --progress-spinner off $(addprefix --ignore-vuln ,$(ACCEPTED)) \
	|| { echo "audit: vulnerable packages, or the service at pypi.org could not say (see above)" >&2; \
	     exit 1; }
