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

.PHONY: help setup reproduce push pull share test test-all test-kernels fingerprint lint format \
    sweep scaling compare bench-study bench-attribution bench-waiting verify-reproduction audit lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	| awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

setup: $(READY) ## Make .venv and install the locked packages, where something changed

reproduce: setup ## Run the study: every stage whose inputs, code or params changed; compare the results
	$(BIN)/dvc repro
	$(BIN)/circuitdrift verify --reproduced

REMOTE_HELP := docs/remotes.md says what this means and how remotes are set up

push: setup ## Store the results' artifacts in the remote
	$(BIN)/dvc push || { echo "$(REMOTE_HELP)" >&2; exit 1; }

pull: setup ## Put the committed results' artifacts in place, without computing
	$(BIN)/dvc pull || { echo "$(REMOTE_HELP)" >&2; exit 1; }

share: setup ## Push an experiment and its artifacts for colleagues: make share NAME=exp
	$(BIN)/dvc exp push origin '$(NAME)' || { echo "$(REMOTE_HELP)" >&2; exit 1; }

# Two processes of one thread: torch's own threads get in each other's way where cores are taken.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --durations=20 \
    --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: setup ## Run the tests that start no DVC, no server and no real model
	$(PYTEST) -m 'not slow and not emulated'

test-all: test ## Run these and the slow ones: the pipeline, remotes, faults, the real model
	$(PYTEST) -m slow

test-kernels: setup ## Compare the bits of emulated processors of two vendors (needs qemu-user)
	$(PYTEST) --dist load -m emulated

fingerprint: setup ## Write down the bits that this machine computes under portable kernels
	$(BIN)/python -m circuitdrift.fingerprint portable > reports/reliability/fingerprint.json.partial
	mv reports/reliability/fingerprint.json.partial reports/reliability/fingerprint.json

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

scaling: setup ## Write reports/scaling: committed experiments, and those that are finished here
	$(BIN)/circuitdrift sweep --summary

# A plain `dvc exp show` has a column for every param and every file of code. Experiments stand
# under the commit that they were derived from, which need not be the last one.
BASELINES = $(sort HEAD $(shell git for-each-ref --format='%(refname)' refs/exps \
    | sed -nE 's,^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/.+,\1\2,p'))
compare: setup ## Compare experiments: what varied and what came of it, best accuracy first
	$(BIN)/dvc exp show $(addprefix --rev=,$(BASELINES)) --hide-workspace --only-changed \
	    --drop '^(Created|State|Executor|(data|models|reports|src)/|dvc.yaml)' \
	    --sort-by reports/metrics/study.json:accuracy --sort-order desc

bench-study: setup ## Time every stage in a temporary clone: seconds and peak memory
	$(BIN)/python benchmarks/study.py $(ARGS)

bench-attribution: setup ## Time the edges against circuit-tracer; write reports/benchmarks (half an hour)
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/selection.py

bench-waiting: setup ## Time how threads wait, idle and beside a busy process (a quarter of an hour)
	$(BIN)/python benchmarks/waiting.py

# ARGS=--reverse runs the last stages first; ARGS=--tiny compares two tiny studies, in minutes.
verify-reproduction: setup ## Run the study again in a clean clone elsewhere; name what differs
	$(BIN)/python benchmarks/reproduction.py $(ARGS)

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

audit: ## Ask the advisory service which locked packages are known to be vulnerable
	set -e; tool=$$(mktemp -d); trap 'rm -rf "$$tool"' EXIT; \
	$(PYTHON) -m venv "$$tool"; \
	"$$tool/bin/python" -m pip install --disable-pip-version-check --quiet pip-audit==$(PIP_AUDIT); \
	"$$tool/bin/pip-audit" --strict --requirement requirements.lock --no-deps --disable-pip \
	    --progress-spinner off $(addprefix --ignore-vuln ,$(ACCEPTED)) \
	|| { echo "audit: vulnerable packages, or the advisory service could not say (see above)" >&2; \
	     exit 1; }
