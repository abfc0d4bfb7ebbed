# make         everything from nothing: environment, then the default profile's tables and figures
# make report  the committed tables, figures and rows as pages for a browser: seconds, computes nothing
# make test    environment, then linting, types and tests
# make docs    the documentation as pages, in .build/docs
# make speed   against the published code and ART (after `make`; benchmarks/speed.py)
# make gpu     the tests and measurements that need CUDA (benchmarks/gpu.py)
# All install into .venv; with an environment of your own, use `dvc repro` and `pytest` directly.

PYTHON ?= python3
# paths are relative: that of this folder may hold spaces
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# as ancer/workspace/cluster.py has them for kernels and workers: threads spin shortly while they
# wait, memory is kept
export GOMP_SPINCOUNT ?= 2000
export MALLOC_MMAP_THRESHOLD_ ?= 33554432
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824

.PHONY: all report test docs speed gpu
.DELETE_ON_ERROR:

# The committed results are there to be read; the first `make` in a clone removes them, so that all
# that follows is computed on this machine (`git diff` then shows where it differs). Later ones only
# do what is missing.
all: .venv/.installed
	@test -d data/checkpoints || rm -rf results
	dvc repro
	@cat results/tables/T1.md; echo; cat results/tables/T2.md; echo; cat results/tables/T3.md; echo
	@cat results/timing/T4.md; echo
	@echo "All of it to be read in a browser: results/report/index.html"

report: .venv/.installed
	ancer report

test: .venv/.tested
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest -n logical --maxprocesses 4 --no-loadscope-reorder

docs: .venv/.documented
	sphinx-build -q -W --keep-going -c docs . .build/docs
	@echo "To be read in a browser: .build/docs/docs/index.html"

gpu: .venv/.tested
	@python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else \
	  "make gpu needs CUDA: torch.cuda.is_available() is False here (the tests in tests/gpu are \
skipped without it; nothing else needs a card)")'
	pytest -m gpu tests/gpu
	python benchmarks/gpu.py

speed: .venv/.installed
	python benchmarks/speed.py digits 64 64
	python benchmarks/speed.py cifar10 16 4

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("ancer needs Python >= 3.11, found " + sys.version) \
	  if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml requirements.lock
	pip install -q -c requirements.lock -e '.[workspace,explore]'
	ln -sf "$(CURDIR)/jupyter_lab_config.py" .venv/etc/jupyter/
	mkdir -p .venv/etc/jupyter/labconfig
	ln -sf "$(CURDIR)/jupyter_lab_settings.json" \
	  .venv/etc/jupyter/labconfig/default_setting_overrides.json
	-git config filter.notebooks.clean '.venv/bin/ancer strip -'
	touch $@

.venv/.tested: .venv/.installed
	pip install -q -c requirements.lock -e '.[workspace,test,docs,dask,explore,imagenet,diffusers]'
	touch $@

.venv/.documented: .venv/.installed
	pip install -q -c requirements.lock -e '.[workspace,explore,docs]'
	touch $@
