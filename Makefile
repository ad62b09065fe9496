# make venv | setup | demo | test | fuzz | lint | compiled | bench | bench-peers | profile     Everything is installed into .venv first.
# COMPILE= runs the sources as they are; otherwise the busiest modules are compiled where there is a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# without a terminal nobody can press Ctrl-C: then the demo runs once and ends
DEMO ?= $(shell [ -t 0 ] || echo --once)
TESTS ?=
# tests at once; 0: one after the other, which takes twice as long and suffers nothing from what else the machine does
JOBS ?= $(shell nproc)
# seconds for each fuzz target; FUZZ="icp --seed 123" for one of them
FUZZ_S ?= 60
FUZZ ?=

COMPILE ?= --if-possible

.PHONY: venv compiled setup demo test fuzz lint bench bench-peers profile lock clean squid

# all that a director needs; on its own machine the package of a Squid would take port 3128 at the next boot
venv: $(STAMP)
	@[ -z "$(COMPILE)" ] || $(BIN)/python -m cachelb.tools.compile $(COMPILE)

# installs the C compiler, too
compiled: $(STAMP)
	@.ci/packages --compiler $(BIN)/python
	@$(BIN)/python -m cachelb.tools.compile

setup: venv squid

$(STAMP): requirements.lock pyproject.toml .ci/packages
	@.ci/packages --python $(PYTHON)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

squid:
	@.ci/packages squid curl nft ip || echo "make: going on without; what needs them is skipped or says so" >&2

demo: setup
	$(BIN)/cachelb demo $(DEMO)

# the sources, then what a request passes through once more, compiled
test: setup
	$(BIN)/python -m pytest $(or $(TESTS),-n $(JOBS) --dist worksteal -m "not alone")
	@[ -n "$(TESTS)" ] || $(BIN)/python -m pytest -m alone
	@[ -n "$(TESTS)" ] || ! CACHELB_COMPILED=1 $(BIN)/python -c "import cachelb" 2>/dev/null || \
	  CACHELB_COMPILED=1 $(BIN)/python -m pytest -r fE -n $(JOBS) tests/relay tests/unit/http tests/unit/routing

fuzz: venv
	CACHELB_COMPILED=0 $(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_S) $(FUZZ)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/mypy

# all of it into docs/, half an hour; BENCH="--quick", BENCH="--scenarios memory --docs docs" for a part
BENCH ?= --docs docs
bench: setup compiled
	@.ci/packages haproxy nginx wrk
	$(BIN)/python -m cachelb.tools.bench $(BENCH)

# where a request's microseconds go: kernel, interpreter, ours; PROFILE="--scenario 64k"
profile: setup
	@.ci/packages nginx wrk
	$(BIN)/python -m cachelb.tools.bench.profile $(PROFILE)

# what peers ask: ICP beside Squid's, ICP while HTTP runs at full load, a rebuild of the digest, the index
bench-peers: setup compiled
	@.ci/packages nginx wrk
	$(BIN)/python -m cachelb.tools.bench.icp
	$(BIN)/python -m cachelb.tools.bench.icp_http
	$(BIN)/python -m cachelb.tools.bench.digest
	$(BIN)/python -m cachelb.tools.bench.holdings

# after a change of the dependencies in pyproject.toml; add UPGRADE=--upgrade for newer versions of all
lock: $(STAMP)
	$(BIN)/python -m piptools compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras --no-header \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links $(UPGRADE) -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
