# Two commands, each with all the set-up it needs: Python >= 3.11, make, a network to PyPI.
#   make demo   compare eight strategies on the embedded task: a table and figures in demo-runs/
#   make test   format, lint, type and import checks, then the whole test suite
# And for those who change gclip:
#   make page       strategies/README.md again, after a change of a strategy
#   make peers      our strategies beside other libraries' clipping, which it installs
#   make frameworks clipping in Lightning, Transformers, Accelerate and TensorBoard, which it installs
#   make distributed  torchrun's own processes, and every strategy in every scope over several
#   make docs       the documentation as a site in build/site, warnings being errors
#   make paper      the comparison that README and docs show: trains, goes on, writes its record
#   make figures    all figures and tables of that record, README's and the docs' too; trains nothing
#   make drills     for an hour: kills, damaged files, noise, soaks, and every strategy compiled to C
#   make coverage   the suite once more, with the lines that no test runs
#   make audit      known holes in the dependencies
#   make constraints  the versions that the suite was run on, pinned again (UPGRADE=--upgrade: newer)
#   make lowest     the suite on the oldest dependencies that pyproject.toml allows
#   make newest     and on the newest there are
# make install CONSTRAINTS=constraints.txt takes the pinned versions.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PINNED := $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
# of make paper: where its runs are kept
STORE ?= build/paper
DEMO := none value norm soft agc percentile zclip adagc

.PHONY: demo paper figures test install check page docs drills peers frameworks distributed coverage audit constraints lowest newest clean

demo: install
	$(BIN)/gclip compare $(DEMO:%=-s %) --store demo-runs

paper: install
	OMP_NUM_THREADS=1 $(BIN)/gclip paper train --store $(STORE) $(if $(DATA),--data $(DATA))
	$(BIN)/gclip paper record --store $(STORE)

figures: install
	$(BIN)/gclip paper draw

test: install check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

drills: install
	GCLIP_DRILLS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m drill

peers: install
	$(BIN)/python -m pip install --quiet -e ".[dev,peers]"
	GCLIP_PEERS=1 $(BIN)/python -m pytest tests/golden/test_peers.py

frameworks: install
	$(BIN)/python -m pip install --quiet -e ".[dev,frameworks]"
	GCLIP_FRAMEWORKS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integrations tests/test_docs.py -k "integrations or in-your-loop"

distributed: install
	GCLIP_DISTRIBUTED=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/training/parallel tests/clipping/test_sharded.py

coverage: install
	$(BIN)/python -m pip install --quiet pytest-cov
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=gclip --cov=strategies --cov=studies --cov=figures --cov-report=term:skip-covered

audit: install
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m tests.supply.audit constraints.txt

constraints: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 $(UPGRADE) \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file constraints.txt

# Old releases warn of what has come after them.
lowest: OLD := --resolution lowest-direct
lowest: IGNORED := -W ignore::DeprecationWarning
lowest newest:
	$(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip install --quiet uv
	.venv-$@/bin/uv pip install --quiet --upgrade --python .venv-$@/bin/python $(OLD) -e ".[dev]"
	OMP_NUM_THREADS=1 .venv-$@/bin/python -m pytest -n 2 --dist loadfile $(IGNORED) $(TESTS)

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gclip needs Python >= 3.11, and $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PINNED) torch torchvision
	$(BIN)/python -m pip install --quiet $(PINNED) -e ".[dev]"
	@touch $@

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy strategies studies figures
	$(BIN)/mypy $$(find tests -name "*.py" ! -name "test_*" ! -name conftest.py ! -name __init__.py)
	$(BIN)/lint-imports --no-logo

docs: install
	$(BIN)/python -m pip install --quiet -e ".[dev,docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

page: install
	$(BIN)/python -m tests.describe.page

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
