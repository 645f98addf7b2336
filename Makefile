# `make` builds .venv; `make demo` shows a session; `make test`, `lint`, `bench`; `fresh`, `matrix`, `foreign`, `dejagnu`, `peers`, `differential`, `torture`, `mutants`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check
NATIVE := $(wildcard gdb_uffd/native/*/*.c gdb_uffd/native/*/*.h gdb_uffd/native/build.py)

.PHONY: all demo test test-unprivileged lint bench fresh matrix foreign dejagnu peers differential torture mutants clean dev gdb test-extras
.DELETE_ON_ERROR:

all: $(VENV)/.native

$(VENV)/.made: tools/make-venv
	tools/make-venv '$(PYTHON)' $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml setup.py
	$(PIP) install 'pip>=21.3' 'setuptools>=77' 'cffi>=1.15' 'lz4>=3' 'zstandard>=0.19'
	tools/with-python-headers $(PY) $(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

# Rebuilt whenever a C source changed; the Python sources are used as they lie in the checkout.
$(VENV)/.native: $(VENV)/.installed $(NATIVE)
	@echo "building gdb_uffd.native._native"
	@tools/with-python-headers $(PY) $(PY) setup.py --quiet build_ext --inplace --force
	@$(PY) -c 'import gdb_uffd.native'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed pyproject.toml
	tools/with-python-headers $(PY) $(PIP) install --no-build-isolation -e '.[dev]'
	@touch $@

dev: $(VENV)/.dev all

# A second gdb as oracle, and the only one where the system has none.  Not in .venv, because
# the wheel puts a `gdb` package into site-packages, which would hide gdb's own there.
.venv-gdb/.made: tools/make-gdb tools/make-venv
	tools/make-gdb '$(PYTHON)' .venv-gdb
	@mkdir -p .venv-gdb && touch $@

gdb: .venv-gdb/.made

demo: all
	tools/demo

test-extras:
	tools/test-extras .cache

test: dev gdb test-extras
	tools/test $(PY) $(PYTEST_ARGS)

# The whole suite as nobody, without any capability, in a private copy of the checkout.  Needs root.
test-unprivileged: dev gdb test-extras
	tools/unprivileged $(PY) -m pytest -rs $(PYTEST_ARGS)

lint: dev
	tools/lint-python $(PY)
	$(PY) tools/structure.py
	tools/lint-c $(PY)

bench: dev gdb
	$(PY) benchmarks/run.py $(BENCH_ARGS)

# The two commands of the README and the unit tests on minimal machines (Debian, Ubuntu) with what the README
# names: half an hour, 3 GB in .cache, needs root; what cannot be had is skipped.  FRESH_ARGS=debian-12 picks one.
fresh:
	'$(PYTHON)' tools/fresh .cache/fresh $(FRESH_ARGS)

# Other kernels (in QEMU), gdbs and lldbs: an hour or more, and 3 GB in .cache.  MATRIX_ARGS="--kernels
# 6.1 --gdbs 16" picks some; the table is docs/compatibility.md.
matrix: dev gdb
	$(PY) tools/matrix $(MATRIX_ARGS)

# gdb's own test-suite through our stub, beside gdbserver: an hour or more.  DEJAGNU_ARGS="gdb.base/step-test.exp
# --again ours --jobs 2" picks some; the table is docs/dejagnu.md.
dejagnu: dev gdb
	tools/dejagnu-source .cache/dejagnu
	$(PY) tests/dejagnu/run.py $(DEJAGNU_ARGS)

# Other projects' test cores, opened here and by stock gdb.
peers: dev gdb
	tools/peer-cores .cache/peers
	$(PY) tests/peers/compare.py $(PEERS_ARGS)

# Random C and C++ programs, alive against our core of the same instant: 1,000 take some hours.
differential: dev gdb
	tools/csmith .cache/differential
	$(PY) tests/differential/run.py $(DIFFERENTIAL_ARGS)

# Cores made in other distributions' roots, with what their processes said alive: some minutes and
# 0.7 GB in .cache, needs root; what cannot be had is skipped.  Then the tests of them, all of them.
foreign: dev gdb
	$(PY) tools/foreign .cache/foreign
	GDB_UFFD_FOREIGN=all $(PY) -m pytest -rs --every-gdb tests/gdb/test_foreign_roots.py $(PYTEST_ARGS)

# Kills at random instants, and damaged inputs under ASan and UBSan: TORTURE_ARGS="--minutes 60".
torture: dev gdb
	tools/with-python-headers $(PY) $(PY) tests/torture/sanitized.py
	$(PY) tests/torture/run.py $(TORTURE_ARGS)

# Does a test fail when a line is wrong?  A minute for each place: MUTANTS_ARGS="--count 30 --seed 2".
mutants: dev gdb
	$(PY) tools/mutants $(MUTANTS_ARGS)

clean:
	rm -rf .venv .venv-gdb .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f gdb_uffd/native/_native.c gdb_uffd/native/*.so gdb_uffd/native/*.o
	find gdb_uffd tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
