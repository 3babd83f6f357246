# `make score` runs the main job on the embedded checkpoint, `make test` the tests; both make .venv first and reuse it.
PYTHON ?= python3
BIN := .venv/bin
FAMILY ?= sam
# What trainings on close windows have in common.
CLOSE := --bfloat16 --windowed 0 --whole-every 3 --close --masks 6 --warmup 50 --averaging 0.997 --balance 0 --picked 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: score serve package train test check soak fuzz clean

score: .venv/run build/model/MLmodel
	$(BIN)/python -m scoring.batch --model build/model --input samples/prompts.csv \
		--output out/predictions.parquet --overlay out/overlay.png --overwrite

serve: .venv/endpoint
	$(BIN)/python -m scoring.online

package: .venv/run
	$(BIN)/python -m model.package

train: .venv/run
	$(BIN)/python -m training.train --family $(FAMILY) --output build/$(FAMILY)-tiny --eager --bfloat16
	$(BIN)/python -m training.train --family $(FAMILY) --start build/$(FAMILY)-tiny --output build/$(FAMILY)-tiny-2 \
		--cache .cache/second --eager --bfloat16 --seed 3 --steps 3600 --windowed 0 --whole-every 4 --rate 6e-4 --balance 0
	$(BIN)/python -m training.train --family $(FAMILY) --start build/$(FAMILY)-tiny-2 --output build/$(FAMILY)-tiny-3 \
		--cache .cache/third --eager --bfloat16 --side 384 --seed 5 --steps 1600 --windowed 0 --whole-every 2 --rate 5e-4 --balance 0
ifeq ($(FAMILY),sam)
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-3 --output build/sam-tiny-4 \
		--cache .cache/fourth --eager --bfloat16 --side 320 --seed 5 --steps 700 --windowed 0 --rate 4e-4 --balance 0
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-4 --output build/sam-tiny-5 \
		--cache .cache/fifth --eager --bfloat16 --side 336 --seed 7 --steps 500 --windowed 0 --rate 3e-4 --balance 0
	$(BIN)/python -m training.mean build/sam-tiny-3 build/sam-tiny-4 build/sam-tiny-5 --side 352 --output build/sam-tiny-6
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-6 --output build/sam-tiny-7 \
		--cache .cache/sixth --eager --bfloat16 --side 352 --seed 11 --scenes 8000 --steps 700 --windowed 0 --images 6 \
		--masks 6 --rate 3e-4 --warmup 30 --averaging 0.99 --balance 0 --picked 1 --frozen
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-6 --output build/sam-tiny-8 \
		--cache .cache/seventh --eager --bfloat16 --side 352 --seed 11 --scenes 8000 --steps 900 --windowed 0 \
		--rate 4e-4 --warmup 40 --averaging 0.99 --balance 0 --picked 1
	$(BIN)/python -m training.mean build/sam-tiny-7 build/sam-tiny-8 --side 352 --output build/sam-tiny-9
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-9 --output build/sam-tiny-10 \
		--cache .cache/eighth --eager --bfloat16 --side 352 --seed 17 --scenes 6000 --steps 700 --windowed 0 \
		--masks 6 --rate 4e-4 --warmup 30 --averaging 0.99 --balance 0 --picked 1.5 --frozen
	$(BIN)/python -m training.mean build/sam-tiny-7 build/sam-tiny-8 build/sam-tiny-10 --side 360 --output build/sam-tiny-11
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-11 --output build/sam-tiny-12 \
		--cache .cache/ninth --side 352 --seed 37 --steps 4000 --rate 7e-4 $(CLOSE)
	$(BIN)/python -m training.mean build/sam-tiny-12 build/sam-tiny-12 build/sam-tiny-12 build/sam-tiny-11 --side 360 \
		--output build/sam-tiny-13
	$(BIN)/python -m training.train --family sam --start build/sam-tiny-13 --output build/sam-tiny-14 \
		--cache .cache/tenth --side 352 --seed 43 --steps 4000 --rate 6e-4 $(CLOSE)
	$(BIN)/python -m training.mean build/sam-tiny-14 build/sam-tiny-13 --side 360 --output build/sam-tiny-15
else
	$(BIN)/python -m training.train --family sam2 --start build/sam2-tiny-3 --output build/sam2-tiny-4 \
		--cache .cache/fourth --eager --bfloat16 --side 448 --seed 7 --steps 600 --windowed 0 --rate 4e-4 --balance 0
	$(BIN)/python -m training.mean --family sam2 build/sam2-tiny-3 build/sam2-tiny-4 --side 448 --output build/sam2-tiny-5
	$(BIN)/python -m training.train --family sam2 --start build/sam2-tiny-5 --output build/sam2-tiny-6 \
		--cache .cache/fifth --eager --bfloat16 --side 448 --seed 11 --scenes 8000 --steps 550 --windowed 0 --images 6 \
		--masks 5 --rate 3e-4 --warmup 30 --averaging 0.99 --balance 0 --picked 1 --frozen
	$(BIN)/python -m training.mean --family sam2 build/sam2-tiny-5 build/sam2-tiny-6 --side 448 --output build/sam2-tiny-7
	$(BIN)/python -m training.train --family sam2 --start build/sam2-tiny-7 --output build/sam2-tiny-8 \
		--cache .cache/sixth --eager --side 384 --seed 31 --steps 3000 --rate 8e-4 $(CLOSE)
	$(BIN)/python -m training.mean --family sam2 build/sam2-tiny-8 build/sam2-tiny-8 build/sam2-tiny-7 --side 448 \
		--output build/sam2-tiny-9
	$(BIN)/python -m training.train --family sam2 --start build/sam2-tiny-9 --output build/sam2-tiny-10 \
		--cache .cache/seventh --side 384 --seed 37 --steps 3200 --rate 6e-4 $(CLOSE)
	$(BIN)/python -m training.mean --family sam2 build/sam2-tiny-10 --side 448 --output build/sam2-tiny-11
	$(BIN)/python -m training.train --family sam2 --start build/sam2-tiny-11 --output build/sam2-tiny-12 \
		--cache .cache/eighth --side 384 --seed 41 --steps 3200 --rate 6e-4 $(CLOSE)
	$(BIN)/python -m training.mean --family sam2 build/sam2-tiny-12 build/sam2-tiny-12 build/sam2-tiny-12 \
		build/sam2-tiny-11 --side 448 --output build/sam2-tiny-13
endif

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A worker more than processors, for they wait for servers and clusters now and then.
test: .venv/test check
	$(BIN)/pytest -n $$(($$(nproc) + 1)) --dist loadgroup --no-loadscope-reorder

# Half an hour of traffic, two minutes of ten times too much of it, and 50 kills of a batch job.
soak: .venv/test
	$(BIN)/python -m tests.reliability.soak --minutes 30
	$(BIN)/python -m tests.reliability.overload --seconds 120
	$(BIN)/python -m tests.reliability.kills --kills 50

# Broken images, and requests made from the endpoint's own description of its routes.
fuzz: .venv/test
	$(BIN)/python -m tests.reliability.fuzz --images 10000
	FUZZ_EXAMPLES=200 $(BIN)/pytest tests/reliability/test_openapi.py tests/reliability/test_parsers.py

clean:
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache

build/model/MLmodel: $(wildcard model/*.py model/families/*.py checkpoints/sam-tiny/*) requirements.txt
	$(BIN)/python -m model.package --output build/model --no-log

# A stamp names what is installed, so that a changed pin installs again.
.venv/run: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/endpoint: requirements-endpoint.txt .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-endpoint.txt
	touch $@

.venv/test: requirements-test.txt requirements-spark.txt requirements-reference.txt requirements-clients.txt .venv/endpoint
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--no-build-isolation --target .venv/reference -r requirements-reference.txt
	test -x .venv/clients/bin/python || $(PYTHON) -m venv .venv/clients
	.venv/clients/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-clients.txt
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }
	command -v java >/dev/null || { apt-get update -qq && apt-get install -qq -y openjdk-17-jre-headless; }
	touch $@
