# Each target does its own set-up: Python 3.11 to 3.13 with pip is all that a fresh machine needs.
PYTHON ?= python3
BIN := .venv/bin
# faiss-cpu or, on a machine with CUDA 12, `make demo FAISS=gpu`.
FAISS ?= cpu
# PyTorch without CUDA, which brings several GB; FAISS=gpu takes it from PyPI. Where the index cannot be reached, pip asks
# twice for each package that PyTorch needs, not six times, and goes on without it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Of `make image`: where it will be pushed to.
REGISTRY ?= REGISTRY
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' distspectral/__init__.py)
INSTALL := $(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt
# OpenMP threads that spin while they wait slow each other down ten times over on busy cores.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-clusters test-ray test-others fuzz gpu-check lint docs wheel image clean

demo: .venv/demo
	$(BIN)/distspectral demo --root runs/demo

# Tests of clusters mostly wait, for processes to start and die: the others run beside them.
test: .venv/installed
	$(MAKE) --jobs=3 --keep-going test-clusters test-ray test-others

test-clusters: .venv/installed
	$(BIN)/pytest -m clusters

test-ray: .venv/installed
	$(BIN)/pytest -m "ray and not clusters"

test-others: .venv/installed
	$(BIN)/pytest -m "not ray"

# Ten thousand damaged shards; FUZZ_SEED=10000 takes the next ones.
fuzz: .venv/installed
	FUZZ_FILES=$${FUZZ_FILES:-10000} $(BIN)/pytest tests/storage/test_fuzz.py -s

# What one card does beside what it can: search, ranks, training, embedding. `make gpu-check FAISS=gpu`.
gpu-check: .venv/installed
	$(BIN)/python -m distspectral.bench.gpu

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in site/; its own packages, so that the tests need none of them.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# dist/distspectral-VERSION-py3-none-any.whl
wheel:
	$(PYTHON) -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir dist .

# What nodes of a cluster run; `make image FAISS=gpu REGISTRY=...` for those with cards.
image:
	docker build -f cluster_configs/Dockerfile --build-arg DEVICE=$(FAISS) \
		-t $(REGISTRY)/distspectral-$(FAISS):$(VERSION) .

# What users install, none of the tools for tests.
.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
ifeq ($(FAISS),cpu)
	$(INSTALL) --retries 1 --extra-index-url $(TORCH_INDEX) torch
endif
	$(INSTALL) --editable ".[$(FAISS)]"
	touch $@

.venv/docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable ".[$(FAISS),docs]"
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable ".[$(FAISS),dev]"
	touch $@

clean:
	rm -rf .venv runs build dist site *.egg-info
