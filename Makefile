# make demo · make test · make check · make bench: each does everything on a machine with Python 3.11 and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := classification,detection,segmentation,tabular,nlp,tuning,dev

SHARED  := ../shared/data
RESULTS := tests/benchmarks/results
RECIPE   = PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_recipe.py

.PHONY: demo test check bench gpu clean

demo: $(STAMP)
	$(BIN)/cookbook demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_layers.py tests/test_surface.py
	$(BIN)/python tests/sizes.py

bench: $(STAMP)
	@echo "tests/benchmarks/README.md says which benchmark measures what, and how to install the peers aside."
	@ls tests/benchmarks/*.py

# On a machine with a CUDA GPU. With a Python that has it all already: make gpu STAMP= BIN=/usr/bin
gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu
	PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_augment_device.py
	PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_device.py
	$(RECIPE) --what "BCCD on a GPU" --out $(RESULTS)/bccd_gpu.json -- detection --data $(SHARED)/bccd --flip-vertical \
		--size 480x640 --epochs 120 --batch-size 16 --precision bf16
	$(RECIPE) --what "CamVid on a GPU" --out $(RESULTS)/camvid_gpu.json -- segmentation --data $(SHARED)/camvid --ignore 11 \
		--arch mobilenet_v2 --pretrained --size 360x480 --epochs 60 --precision bf16

# PIP_FIND_LINKS is emptied: a folder of wheels could offer a torch that does not fit the pinned torchvision.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_FIND_LINKS= $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
