# `make score` scores the sample table with `sam-tiny`; `make test` runs the tests. Both create .venv and reuse it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FAMILY ?= sam
ENVIRONMENTS := clients label-studio tools
TESTS ?=
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: score serve package train test check coverage docs soak attack fuzz clean

score: .venv/server build/model/MLmodel
	$(BIN)/sam-endpoint score --model build/model --input samples/prompts.csv \
		--output out/predictions.parquet --overlay out/overlay.png --overwrite

serve: .venv/server
	$(BIN)/sam-endpoint serve

package: .venv/run
	$(BIN)/sam-endpoint package

train: .venv/run
	$(BIN)/python -m sam_endpoint.training.recipe training/recipes/$(FAMILY)-tiny.toml $(if $(PHOTOS),--photos $(PHOTOS))

check: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# One worker more than processors, because workers sometimes wait for servers and clusters. Tests that fail are run once
# more, without others beside them. Both reports are printed: a test that fails only the first time has a fault, too.
PYTEST = $(BIN)/pytest --dist loadgroup --no-loadscope-reorder
test: .venv/test check
	$(PYTEST) -n $$(($$(nproc) + 1)) || { [ $$? -eq 1 ] && $(PYTEST) -n 1 --last-failed --last-failed-no-failures none; }

# Half an hour of mixed traffic, two minutes of ten times the capacity, and a batch job that is killed 50 times.
soak: .venv/test
	$(BIN)/python -m tests.reliability.soak --minutes 30
	$(BIN)/python -m tests.reliability.overload --seconds 120
	$(BIN)/python -m tests.reliability.kills --kills 50

# Attacks on a running endpoint, and a table of their effects.
attack: .venv/test
	$(BIN)/python -m tests.reliability.attack --seconds 20

# Broken images, and requests that are generated from the endpoint's OpenAPI description.
fuzz: .venv/test
	$(BIN)/python -m tests.reliability.fuzz --images 10000
	FUZZ_EXAMPLES=200 $(BIN)/pytest tests/reliability/test_openapi.py tests/reliability/test_parsers.py

# Run the tests and print the coverage of each file. `make coverage TESTS=tests/model/test_masks.py` runs some tests only.
coverage: .venv/test
	mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $$(($$(nproc) + 1)) --dist loadgroup --no-loadscope-reorder $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The documentation site, in build/site. To read it: python3 -m http.server --directory build/site
docs: .venv/server .venv/docs/bin/mkdocs
	$(BIN)/python docs/site/stage.py
	$(BIN)/python docs/site/reference.py
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --quiet
	$(BIN)/python docs/site/check.py

clean:
	rm -rf build out .pytest_cache .mypy_cache .ruff_cache

build/model/MLmodel: $(shell find model checkpoints/sam-tiny -name '*.py' -o -name '*.safetensors' -o -name '*.json') \
		model/requirements.txt | .venv/run
	$(BIN)/sam-endpoint package --output build/model --no-log

# Each file below marks what .venv contains. run: the package. server: also the endpoint, and Azure ML's server for the
# README's examples. test: also the packages of the tests. The pinned versions are installed first, so that pip selects no
# other versions when it installs the package.
.venv/run: model/requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -r model/requirements.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

.venv/server: requirements.lock .venv/run
	$(PIP) --no-build-isolation --constraint requirements.lock -e '.[server]' azureml-inference-server-http
	touch $@

.venv/test: requirements.lock tests/environments/reference.txt .venv/server $(ENVIRONMENTS:%=.venv/%/installed)
	$(PIP) -r requirements.lock
	SAM2_BUILD_CUDA=0 $(PIP) --no-deps --upgrade --no-build-isolation --target .venv/reference \
		-r tests/environments/reference.txt
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; }
	command -v java >/dev/null || { apt-get update -qq && apt-get install -qq -y openjdk-17-jre-headless; }
	# nginx and the libraries of X-AnyLabeling's window toolkit that chromium does not bring.
	PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || { apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends nginx-light libegl1 libgl1 libatomic1; }
	touch $@

# Virtual environments of published clients. Their files are not compiled beforehand: few of them are ever imported.
$(ENVIRONMENTS:%=.venv/%/installed): .venv/%/installed: tests/environments/%.txt
	test -x .venv/$*/bin/python || $(PYTHON) -m venv .venv/$*
	.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r $<
	touch $@

.venv/docs/bin/mkdocs: docs/requirements.txt
	test -x .venv/docs/bin/python || $(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch $@
