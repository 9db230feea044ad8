# make demo    set up and run the demo: generator → forwarder → sink on two simulated cards
# make test    set up and pass all tests, compiled and interpreted
# make test-guest  only the tests in virtual machines, with their measurements
# make test-peer   only the tests against DPDK's testpmd
# make coverage    which lines the interpreted tests reach, in twice the time that they take
# make test-check  the tests with traffic in the checking mode: bounds, and who has each packet buffer
# make check   formatting, lint, types, and the layers of the architecture
# make bench   the first figures of the README
# make evaluate  docs/evaluation.md, on a quiet machine; DPDK beside needs: sudo ixy setup --pages 340
# make soak    threads, then interrupts, then waits, for MINUTES=5 each: is a packet or a buffer lost, or stranded?
# make soak-workers  PACKETS=1000000000 through two workers: is one lost, does memory grow?
# make soak-devices  COUNT=10000 devices opened and closed: is anything left?
# make fuzz-card  WRITES=100000000 of nonsense to simulated cards' registers and descriptors; takes an hour
# make course-mistakes  does the judge of the course find what students do wrong, and nothing else? takes 5 minutes
# make mutants put faults into the driver and see whether the tests notice; takes an hour

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test tests-of-cards tests-of-the-rest coverage test-guest test-peer test-check check bench evaluate soak soak-workers soak-devices fuzz-card course-mistakes mutants setup tools clean

demo: setup
	$(BIN)/ixy demo

# Simulated cards take one core, all the rest another one, and virtual machines and peers, which must keep up, have both.
# Those are for compiled kernels. What does the same in either mode is left to interpreted ones, as the lanes are as long
# as each other then. What moves packets is run once more in the checking mode.
test: setup tools
	@echo "two lanes of tests side by side; each part reports when it has ended, after a quarter of an hour and more"
	$(MAKE) --jobs=2 --output-sync=line tests-of-cards tests-of-the-rest
	$(PYTEST) tests/guest tests/peer

tests-of-cards:
	$(PYTEST) tests/sim -m "not once"

tests-of-the-rest:
	$(PYTEST) tests/cli tests/unit -m "not once"
	IXY_JIT=0 $(PYTEST) -m "not guest and not peer"
	IXY_CHECK=1 IXY_JIT=0 $(PYTEST) tests/sim/test_path.py tests/sim/test_driver.py tests/sim/test_virtio_rings.py

# Interpreted, every line of every kernel is seen.
coverage: setup tools
	IXY_JIT=0 $(BIN)/coverage run -m pytest -m "not guest and not peer"
	$(BIN)/coverage report --skip-covered

test-guest: setup tools
	$(PYTEST) -s tests/guest

test-peer: setup tools
	$(PYTEST) tests/peer

test-check: setup tools
	IXY_CHECK=1 $(PYTEST) tests/sim tests/peer
	IXY_CHECK=1 IXY_JIT=0 $(PYTEST) tests/sim

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: setup
	$(BIN)/ixy bench forward
	$(BIN)/ixy bench rate
	$(BIN)/ixy bench python

evaluate: setup
	$(BIN)/ixy evaluate --output docs

MINUTES ?= 5
COUNT ?= 10000
PACKETS ?= 1000000000
WRITES ?= 100000000

soak: setup
	$(BIN)/python tools/soak.py threads $(MINUTES)
	$(BIN)/python tools/soak.py signals $(MINUTES)
	$(BIN)/python tools/soak.py waits $(MINUTES)

soak-workers: setup
	$(BIN)/python tools/soak.py workers $(PACKETS)

soak-devices: setup
	$(BIN)/python tools/soak.py devices $(COUNT)

fuzz-card: setup
	$(BIN)/python tools/fuzz_card.py $(WRITES)

course-mistakes: setup
	$(BIN)/python tools/course_mistakes.py

mutants: setup
	$(BIN)/python tools/mutants.py

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	tools/make-venv $(PYTHON) $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable . --group dev
	touch $@

# What the tests with real traffic need besides Python; without it they say so and are skipped.
tools:
	tools/install-debian-packages arping curl dnsmasq-base dpdk dpdk-dev ethtool iproute2 iputils-ping iperf3 libseccomp2 procps tcpdump tshark wireshark-common

clean:
	rm -rf $(VENV) .cache .coverage .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
