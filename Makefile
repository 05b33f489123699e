# Needs Python 3.11 or later and make; everything else goes into .venv.
.PHONY: help quickstart data test test-peers test-oldest test-newest lint docs tutorials \
	constraints clean

CANDIDATES = python3 python3.13 python3.12 python3.11 python
SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin
TWO = -n 2 --dist loadfile --no-loadscope-reorder
# uv is several times as fast; where it cannot be had, or not reach what pip is told of
# in its configuration, pip does it.
UV = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
PIP = $(BIN)/python -m pip install --quiet
install = $(UV) -c constraints.txt $(1) || $(PIP) -c constraints.txt $(1)

help:
	@echo "make quickstart   train and score on embedded digits; no download of data"
	@echo "make data         get FashionMNIST, MNIST and outliers, by whatever works here"
	@echo "make test         run the tests"
	@echo "make test-peers   run those against PyTorch itself, which it installs"
	@echo "make test-oldest  run them with the oldest versions that pyproject.toml allows"
	@echo "make test-newest  run them with the newest versions, whatever constraints.txt has"
	@echo "make lint         ruff and pyright"
	@echo "make docs         build the site into site/; a warning is an error"
	@echo "make tutorials    run examples/ and keep what the site shows of them"
	@echo "make constraints  resolve the newest versions into constraints.txt"
	@echo "make clean        remove .venv and results"

quickstart: .venv/with-experiments
	$(BIN)/fssd table2 --benchmark digits

data: .venv/with-data
	$(BIN)/python -m fssd_jax.data.fetch

# Two processes: much of the time goes into compiling, which takes one core.
test: .venv/with-dev
	$(BIN)/python -m pytest $(TWO)

test-peers: .venv/with-peers
	$(BIN)/python -m pytest -m peers $(TWO)

# Old Flax calls what new JAX deprecates.
test-oldest: .venv/with-dev
	$(PIP) uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest --resolution lowest-direct \
		-e ".[dev]"
	$(BIN)/uv pip install --quiet --python .venv-oldest --no-deps neural-tangents==0.6.5
	.venv-oldest/bin/python -m pytest $(TWO) -W default::DeprecationWarning

# Without the extra `ntk`, which caps JAX. New JAX deprecates what old Flax calls.
test-newest: .venv/with-dev
	$(PIP) uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-newest
	$(BIN)/uv pip install --quiet --python .venv-newest -e ".[dev]"
	.venv-newest/bin/python -m pytest $(TWO) -W default::DeprecationWarning

lint: .venv/with-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/with-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

tutorials: .venv/with-dev
	$(BIN)/python -m website.tutorials

constraints: .venv/with-dev
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed \
		--report .venv/resolved.json ".[all]"
	$(BIN)/python -c "import json; \
	found = [p['metadata'] for p in json.load(open('.venv/resolved.json'))['install']]; \
	head = open('constraints.txt').read().splitlines()[:2]; \
	names = sorted((m['name'].lower().replace('_', '-'), m['version']) for m in found); \
	lines = [f'{n}=={v}' for n, v in names if n != 'fssd-jax']; \
	open('constraints.txt', 'w').write('\n'.join(head + lines) + '\n')"

clean:
	rm -rf .venv .venv-oldest .venv-newest results site

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later with venv and pip" \
		"was found; install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	-$(BIN)/python -m pip install --quiet uv

# neural-tangents asks for TensorFlow (1.9 GB), of which we need nothing.
.venv/with-dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv (a minute or two the first time)"
	$(call install,-e ".[dev]")
	$(call install,--no-deps neural-tangents)
	@touch $@

# PyPI's PyTorch for Linux brings CUDA (3 GB); to avoid it,
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test-peers
.venv/with-peers: .venv/with-dev
	@echo "installing PyTorch and pytorch-ood into .venv"
	$(PIP) -c constraints.txt torch pytorch-ood==0.4.0
	@touch $@

# One stamp an extra: `make quickstart` does not wait for the developer's tools.
.venv/with-%: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv (a minute or two the first time)"
	$(call install,-e ".[$*]")
	@touch $@
