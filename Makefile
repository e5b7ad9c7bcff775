# `make` alone prints this list.
PYTHON ?= python3
PYTHON311 ?= python3.11
VENVS := .venv
SERVING := $(VENVS)/serving
TEST := $(VENVS)/test
TRAINING := $(VENVS)/training
JAX := $(VENVS)/jax
TFLITE := $(VENVS)/tflite-runtime
SAM := $(VENVS)/sam
AUDIT := $(VENVS)/audit
BROWSER := $(VENVS)/browser
PICTURES := $(VENVS)/pictures
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --require-hashes

.DEFAULT_GOAL := help
.PHONY: help predict run emulate train evaluate tune steps study data fetch model score test-jax test test-training test-browser check format lock clean test-container test-tflite-runtime image preflight deploy smoke bulk destroy costs sbom audit benchmark benchmark-models benchmark-plots no-garment image-size soak convert inspect publish frontier

help: ## print this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- use it ------------------------------------------------------------------

predict: $(SERVING)/.ok ## classify a picture: URL=https://... or IMAGE=path (default: one of ours)
	@$(SERVING)/bin/python -m tools.serve predict $(if $(URL),--url "$$URL") $(if $(IMAGE),--image "$$IMAGE")

run: $(SERVING)/.ok ## serve the HTTP API and the demo page on http://127.0.0.1:8080
	@$(SERVING)/bin/python -m tools.serve serve

emulate: $(TEST)/.ok ## start the handler under the Lambda Runtime Interface Emulator
	@$(TEST)/bin/python -m tools.emulator

# --- train it ----------------------------------------------------------------

DATA := $(if $(DATASET),--dataset '$(DATASET)')
SOURCES := $(DATA) $(if $(WEIGHTS),--backbone-weights '$(WEIGHTS)')

train: $(TRAINING)/.ok ## fine-tune Xception: DATASET=... WEIGHTS=... ARGS='--name mine --size 224'
	@$(TRAINING)/bin/python -m training train $(SOURCES) $(ARGS)

evaluate: $(TRAINING)/.ok ## score a model: MODEL=runs/mine [SECOND=...] [FOLDER=... or SPLIT=validation]
	@$(TRAINING)/bin/python -m training evaluate $(or $(MODEL),lambda_function/model.tflite) $(SECOND) $(if $(FOLDER),--folder '$(FOLDER)') $(if $(SPLIT),--split $(SPLIT)) $(DATA) $(ARGS)

tune: $(TRAINING)/.ok ## search learning rate, inner layer, dropout: the course's eleven trials
	@$(TRAINING)/bin/python -m training tune $(SOURCES) $(ARGS)

steps: $(TRAINING)/.ok ## the course, step by step: STEP=1 to 9, all, or table
	@$(TRAINING)/bin/python -m training steps $(or $(STEP),all) $(SOURCES) $(ARGS)

study: $(TRAINING)/.ok ## what a choice is worth, over three seeds: STUDY=size or ablation
	@$(TRAINING)/bin/python -m training study $(or $(STUDY),ablation) $(SOURCES) $(ARGS)

data: $(TEST)/.ok ## fetch the data set at its pinned commit, checked, to data/
	@$(TEST)/bin/python -m training data

fetch: $(TRAINING)/.ok ## fetch ImageNet weights and wheels to data/: afterwards no network is needed
	@$(TRAINING)/bin/python -m training weights
	@$(TRAINING)/bin/python -m pip download -qq --disable-pip-version-check --require-hashes -r requirements/training.txt -d data/wheels

RUN ?= rebuilt
RECIPE ?= int8_float_head
OUTPUT ?= runs/$(RUN)/model.tflite
REBUILD := runs/$(RUN)/evaluation
model: $(TRAINING)/.ok ## rebuild offline, resumable: DATASET=... WEIGHTS=... RUN=rebuilt RECIPE=... TRAIN='--size 224'
	@$(TRAINING)/bin/python -m training train --name '$(RUN)' $(SOURCES) $(TRAIN)
	@$(TRAINING)/bin/python -m converter 'runs/$(RUN)/model.keras' --recipe '$(RECIPE)' --output '$(OUTPUT)' $(DATA)
	@$(TRAINING)/bin/python -m training evaluate '$(OUTPUT)' 'runs/$(RUN)' --split validation --out '$(REBUILD)' $(DATA)
	@$(TRAINING)/bin/python -m training card '$(REBUILD)/report.json' --out 'runs/$(RUN)/card.md'
	@echo "wrote $(OUTPUT), $(REBUILD)/report.html and runs/$(RUN)/card.md"

score: $(TEST)/.ok ## score the shipped model on the test split again; must repeat the record
	@$(TEST)/bin/python -m training evaluate lambda_function/model.tflite --split test --must-be-recorded --no-gallery $(DATA) $(ARGS)

# --- convert it --------------------------------------------------------------

KERAS_MODEL = $(or $(MODEL),runs/$(RUN)/model.keras)
convert: $(TRAINING)/.ok ## convert and gate a model: MODEL=runs/mine/model.keras RECIPE=... (OUTPUT=: beside it)
	@$(TRAINING)/bin/python -m converter '$(KERAS_MODEL)' --recipe $(RECIPE) --output '$(if $(filter file,$(origin OUTPUT)),$(basename $(KERAS_MODEL)).tflite,$(OUTPUT))' $(DATA) $(ARGS)

inspect: $(TEST)/.ok ## print all that an artifact says and holds: FILE=model.tflite
	@$(TEST)/bin/python -m converter inspect '$(or $(FILE),lambda_function/model.tflite)'

publish: $(TEST)/.ok ## upload an artifact by its content's hash: TO=s3://bucket/prefix FILE=model.tflite
	@$(TEST)/bin/python -m converter publish '$(or $(FILE),lambda_function/model.tflite)' --to '$(TO)'

# --- test it -----------------------------------------------------------------

test: $(TEST)/.ok ## run the tests of everything that is deployed
	$(TEST)/bin/python -m pytest -m "not training and not browser and not container" $(ARGS)

# Only files with such tests: the others import what the training environment does not have.
TRAINING_TESTS := $(shell grep -rl 'mark\.training' tests --include='test_*.py')
test-training: $(TRAINING)/.ok ## run the tests that need Keras and TensorFlow
	$(TRAINING)/bin/python -m pytest -m training $(TRAINING_TESTS) $(ARGS)

test-jax: $(JAX)/.ok ## train on JAX, without TensorFlow, on one device and on two
	KERAS_BACKEND=jax $(JAX)/bin/python -m pytest -m training tests/training/test_train_jax.py $(ARGS)

test-browser: $(BROWSER)/.ok ## try the demo page in Chromium (WRITE_SCREENSHOTS=1 writes docs/images)
	$(BROWSER)/bin/python -m pytest tests/browser $(ARGS)

test-container: $(TEST)/.ok $(SAM)/.ok ## build and run the image, and SAM's local gateway, in containers
	$(TEST)/bin/python -m tests.docker $(ARGS)

SERVING_TESTS := tests/serving tests/tools/test_serve.py
test-tflite-runtime: $(TFLITE)/.ok ## run the serving tests on the other interpreter (needs Python 3.11)
	$(TFLITE)/bin/python -m pytest -p no:cacheprovider -m "not training and not browser and not container and not emulator" $(SERVING_TESTS) $(ARGS)

check: $(TEST)/.ok ## lint, formatting and types
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy

format: $(TEST)/.ok ## format the code
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

openapi: $(TEST)/.ok ## write openapi.json and the /docs page from the code
	$(TEST)/bin/python -m tools.openapi

# --- measure it --------------------------------------------------------------

KERAS ?= runs/release-1.0.0/model.keras
benchmark: $(TEST)/.ok ## measure ours beside its peers in one run (ARGS=--quick: once, keeps nothing)
	@$(TEST)/bin/python -m benchmarks $(ARGS)

benchmark-models: $(TRAINING)/.ok ## write the peers' models from a trained one: KERAS=path
	@$(TRAINING)/bin/python $(PIP_INSTALL) -r requirements/peer-build.txt
	@$(TRAINING)/bin/python -m benchmarks.baselines.build '$(KERAS)'

benchmark-plots: $(TRAINING)/.ok ## draw what `make benchmark` measured
	@$(TRAINING)/bin/python -m benchmarks.plots

frontier: $(TRAINING)/.ok ## every recipe of trained models, side by side: RUNS='runs/a runs/b' ARGS=--prepare
	@$(TRAINING)/bin/python $(PIP_INSTALL) -r requirements/peer-build.txt
	@$(TRAINING)/bin/python -m benchmarks.pareto $(or $(RUNS),runs/$(RUN)) $(DATA) $(ARGS)

no-garment: $(PICTURES)/.ok ## what the model says of pictures without a garment; keeps the figures
	@$(PICTURES)/bin/python -m benchmarks.no_garment --write $(DATA)

image-size: $(TEST)/.ok ## count what the image adds to its base, beside a course-style one (ARGS=--write: keeps it)
	@$(TEST)/bin/python -m benchmarks.image_size $(ARGS)

soak: $(TEST)/.ok ## 5,000 mixed requests through the emulator; keeps the figures
	SOAK_REQUESTS=5000 SOAK_WRITE=1 $(TEST)/bin/python -m pytest -q tests/serving/test_soak.py

# --- deploy it ---------------------------------------------------------------

# STACK= names one; else it is the one that was deployed from here
STACK_OPTION = $(if $(STACK),--stack '$(STACK)')
REGISTRY_ENV := BUILDX_NO_DEFAULT_ATTESTATIONS=1 # Lambda refuses an index of image and attestation
image: ## build the container image: ARCH=arm64, BASE_IMAGE=..., REQUIREMENTS=tflite-runtime, BOTO3=locked
	$(REGISTRY_ENV) docker build --platform linux/$(if $(filter arm64,$(ARCH)),arm64,amd64) $(foreach name,BASE_IMAGE REQUIREMENTS BOTO3,$(if $($(name)),--build-arg $(name)=$($(name)))) --tag clothing-classifier .

preflight: $(SAM)/.ok ## what would stop a deployment: STACK=name PARAMS='MemoryMb=3008 ApiAuth=iam'
	@$(SAM)/bin/python -m deploy.preflight $(STACK_OPTION) $(PARAMS)

deploy: $(SAM)/.ok ## look, build, deploy to AWS; asks for every parameter the first time (YES=1 asks nothing)
	@SAM_CLI_TELEMETRY=0 $(SAM)/bin/python -m deploy.up $(STACK_OPTION) $(if $(YES),--yes) $(PARAMS)

smoke: $(if $(IAM),$(SAM)/.ok) ## ask a deployed endpoint real questions: URL=https://... (TOKEN=..., or IAM=1)
	@$(if $(IAM),$(SAM)/bin/python,$(PYTHON)) -m deploy.smoke '$(URL)' $(if $(IAM),--iam)

bulk: $(SAM)/.ok ## deploy the bulk run: STACK=name PARAMS='ImageBucket=pictures ResultBucket=results'
	@$(SAM)/bin/python -m deploy.bulk $(STACK_OPTION) $(PARAMS)

destroy: $(SAM)/.ok ## remove the stack and its images from AWS; asks first
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam delete $$($(SAM)/bin/python -m deploy.stack $(STACK_OPTION))

costs: ## write the cost tables of docs/deploy-reference.md from what was measured; MS=milliseconds prints yours
	@$(PYTHON) -m deploy.costs $(if $(MS),--ms $(MS),--write)

sbom: ## show what the image of `make image` holds, with licences (CycloneDX)
	@docker run --rm --entrypoint cat clothing-classifier /var/task/sbom.cdx.json

audit: $(AUDIT)/.ok ## look the locked packages up in the public lists of vulnerabilities
	$(AUDIT)/bin/python -m tools.audit

# --- set-up ------------------------------------------------------------------

CHECK_PYTHON := $(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed; this is %d.%d. Name one: make PYTHON=python3.12" % v[:2])'

$(SERVING)/.ok: requirements/serving.txt
	@echo "setting up $(@D) (once)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/serving.txt
	@touch $@

$(TEST)/.ok: requirements/serving.txt requirements/s3.txt requirements/test.txt
	@echo "setting up $(@D) (once, about a minute)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/serving.txt -r requirements/s3.txt -r requirements/test.txt
	@touch $@

$(TFLITE)/.ok: requirements/tflite-runtime.txt requirements/s3.txt requirements/test.txt
	@echo "setting up $(@D) (once; tflite-runtime ends at Python 3.11: $(PYTHON311))"
	@$(PYTHON311) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/tflite-runtime.txt -r requirements/s3.txt -r requirements/test.txt
	@touch $@

# SAM pins extras of packages that it names without them, which pip's hash mode does not resolve;
# the lock is complete, so nothing has to be resolved.
$(SAM)/.ok: requirements/sam.txt
	@echo "setting up $(@D) (once, about a minute)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) --no-deps -r requirements/sam.txt
	@touch $@

$(AUDIT)/.ok: requirements/audit.txt
	@echo "setting up $(@D) (once)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/audit.txt
	@touch $@

$(JAX)/.ok: requirements/jax.txt
	@echo "setting up $(@D) (once, about a minute)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/jax.txt
	@touch $@

$(TRAINING)/.ok: requirements/training.txt
	@echo "setting up $(@D) (once, some minutes: TensorFlow is large)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r requirements/training.txt
	@touch $@

$(BROWSER)/.ok: requirements/serving.txt requirements/s3.txt requirements/test.txt requirements/browser.txt
	@echo "setting up $(@D) (once, about a minute)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) $(addprefix -r ,$^)
	@touch $@

$(PICTURES)/.ok: requirements/serving.txt requirements/pictures.txt
	@echo "setting up $(@D) (once)"
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) $(addprefix -r ,$^)
	@touch $@

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
lock: ## write the hash-locked requirement files anew (needs uv)
	cd requirements && for group in serving s3 test training jax browser sam audit; do $(LOCK) $$group.in -o $$group.txt || exit 1; done
	cd requirements && uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux2014 --only-binary :all: --generate-hashes --no-emit-index-url --no-emit-find-links --no-header tflite-runtime.in -o tflite-runtime.txt
	cd requirements && uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header peer-course.in -o peer-course.txt
	cd requirements && for group in pictures peer-ours peer-onnx peer-tensorflow peer-build; do $(LOCK) $$group.in -o $$group.txt || exit 1; done
	cd requirements && $(LOCK) --no-deps emulator.in -o emulator.txt

clean: ## remove the virtual environments and caches
	rm -rf $(VENVS) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
