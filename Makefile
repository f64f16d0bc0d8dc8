# What people type. Each target works as the first thing on a fresh clone: it makes .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
BUILT := $(VENV)/built
ADAPTERS := .venv-adapters
ADAPTED := $(ADAPTERS)/ready
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
GPU_SITE := build/gpu-site
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test adapters compat sanitize chaos attack bench gpu lint clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

setup: $(BUILT)  ## the environment alone: .venv, pinned packages, the C++ extension

train: $(BUILT)  ## train a VAE on the embedded digits; ARGS="..." adds flags of `fastvae train`
	$(BIN)/fastvae train --epochs 400 $(ARGS)

test: $(BUILT)  ## every test; ARGS="-m 'not slow'" for the quick ones
	OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadgroup --max-worker-restart 0 $(ARGS)

adapters: $(BUILT) $(ADAPTED)  ## the tests that need pythae, diffusers, DALI, h5py, datasets or jax (Python 3.11 or later)
	OMP_WAIT_POLICY=passive $(ADAPTERS)/bin/python -m pytest tests/patch tests/bench tests/data \
	  -k "patch or pythae or agree or dali or hdf5 or chunks or huggingface or jax" $(ARGS)

compat:  ## the lowest and the newest versions of everything: wheels, quick tests, two processes (Python 3.10 or 3.11)
	tests/compat.sh $(PYTHON)

sanitize: $(BUILT)  ## the C++ operators under AddressSanitizer and UndefinedBehaviorSanitizer
	tests/sanitize.sh $(BIN)/python

chaos: $(BUILT)  ## kill and damage runs in every known way, go on, and compare: some ten minutes
	$(BIN)/python tests/train/chaos $(ARGS)

attack: $(BUILT)  ## what a stranger's files and folders could do, and a fuzzer of each format: some twenty minutes
	$(BIN)/python tests/attack $(ARGS)

bench: $(BUILT)  ## every benchmark; FASTVAE_DATA=DIR for real MNIST; RESULT=FILE.json keeps the figures
	$(BIN)/pytest benchmarks --benchmark-only $(if $(RESULT),--benchmark-json=$(RESULT)) $(ARGS)

# It runs in .venv or, if PYTHON is given, in that interpreter with its own packages: no .venv, no registry.
ifeq ($(origin PYTHON),file)
gpu: $(BUILT)  ## is all right on this GPU, and how fast: 8 minutes; ARGS=--dry tries the script itself on the CPU
	$(BIN)/python benchmarks/gpu $(ARGS)
else
gpu:
	benchmarks/gpu/install.sh $(PYTHON) $(GPU_SITE)
	PYTHONPATH="$(CURDIR)/$(GPU_SITE)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) benchmarks/gpu $(ARGS)
endif

lint: $(BUILT)  ## ruff and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(ADAPTERS) .venv-oldest .venv-newest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fastvae needs Python 3.10 or later: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "no venv in $(PYTHON): install it (Debian: apt install python3-venv)"; exit 1; }
	@echo "Installing torch and the other packages of constraints.txt into $(VENV): some minutes, and gigabytes with CUDA."
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision --group build --group dev
	@touch $@

# An environment for packages that fastvae patches and does not need. It sees all of .venv, pip and fastvae included.
$(ADAPTED): constraints.txt constraints-adapters.txt pyproject.toml | $(BUILT)
	$(BIN)/python -m venv --without-pip $(ADAPTERS)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > \
	  "$$($(ADAPTERS)/bin/python -c '$(SITE)')/borrowed.pth"
	$(ADAPTERS)/bin/python -m pip install --quiet -c constraints.txt -c constraints-adapters.txt --group adapters
	@touch $@

# An editable install: Python files are used as they lie; the extension is built again when its sources change.
$(BUILT): $(READY) CMakeLists.txt pyproject.toml $(wildcard csrc/*) $(wildcard kernels/*.py)
	@command -v $${CXX:-c++} >/dev/null || \
	  echo "No C++ compiler: the CPU will run the slower eager reference (Debian: apt install g++, then make setup)."
	@echo "Installing fastvae and compiling its C++ extension: a minute or two."
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt --editable .
	@touch $@
