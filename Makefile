# `make` alone prints the list of targets. docs/architecture.md says what stands where.
PYTHON ?= python3
PYTHON311 ?= python3.11
VENVS := .venv
.DEFAULT_GOAL := help

# --- variables and arguments -------------------------------------------------
# A variable counts only if the command line gives it: some systems set NAME or PORT. Recipes read
# it from the environment, as "$$IMAGE". So spaces, quotes and dollar signs in a path do no harm.
# ARGS and TRAIN hold options: the shell splits them into words, and quotes work inside them.

VARIABLES := ARCH ARGS BASE_IMAGE BOTO3 CONFIG DATASET EXAMPLE EXPLAIN FIX FORMAT GROUPS HEIC IAM IMAGE LABELS LICENCE \
  MODEL NAME NORMALISATION OUTPUT PARAMS PORT RECIPE REQUIREMENTS RESIZE RETRY RUN SIZE STACK STEP \
  SUBJECT TITLE TO TRAIN URL WEIGHTS YES
SETTINGS := PYTHON PYTHON311 VENVS TOKEN

define read_variable
  ifeq ($$(origin $(1)),command line)
    override $(1) := $$(value $(1))
    export $(1)
  else
    override $(1) :=
    unexport $(1)
  endif
endef
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
$(foreach v,$(VARIABLES),$(eval $(call read_variable,$v)))
# bash keeps GROUPS for itself, where it is the shell.
export GROUPS_FILE := $(GROUPS)
# For a make inside a recipe, such as a test's.
MAKEOVERRIDES :=
unexport MAKEFLAGS

TARGETS := help predict run test model deploy emulate image data data-check split fetch train steps \
  score convert import adopt check test-training test-jax test-browser test-container \
  test-tflite-runtime test-arm64 preflight smoke bulk events destroy lock
.PHONY: $(TARGETS)
# Without this, make says "nothing to be done" for a stray file name, and the target ignores it.
STRAY := $(firstword $(filter-out $(TARGETS) $(VENVS)/%/.ok,$(MAKECMDGOALS)))
ifneq ($(STRAY),)
  $(error There is no target $(STRAY). `make` prints the list. A variable names a file: make predict IMAGE=$(STRAY))
endif
STRAY := $(firstword $(filter-out $(VARIABLES) $(SETTINGS),$(GIVEN)))
ifneq ($(STRAY),)
  $(error There is no variable $(STRAY). Known: $(VARIABLES) $(SETTINGS))
endif

# What each target reads. Anything else on its command line is a mistake that would have no effect.
WORD_NAMES := NAME TITLE SUBJECT LICENCE
READS_predict := IMAGE URL FORMAT EXPLAIN MODEL
READS_run := MODEL PORT
READS_test := ARGS
READS_model := DATASET WEIGHTS GROUPS RUN CONFIG TRAIN RECIPE OUTPUT $(WORD_NAMES)
READS_deploy := STACK PARAMS YES
READS_emulate := MODEL PORT
READS_image := MODEL ARCH BASE_IMAGE REQUIREMENTS BOTO3 HEIC
READS_data-check := DATASET ARGS
READS_split := DATASET TO GROUPS ARGS
READS_train := DATASET WEIGHTS ARGS
READS_steps := STEP DATASET WEIGHTS ARGS
READS_convert := MODEL RUN RECIPE OUTPUT DATASET ARGS $(WORD_NAMES)
READS_import := MODEL LABELS SIZE NORMALISATION RESIZE DATASET RECIPE OUTPUT ARGS $(WORD_NAMES)
READS_adopt := MODEL EXAMPLE DATASET YES
READS_score := DATASET GROUPS ARGS
READS_check := FIX
READS_preflight := STACK PARAMS
READS_smoke := STACK URL IAM
READS_bulk := STACK PARAMS RETRY YES
READS_events := STACK PARAMS YES
READS_destroy := STACK YES
reads = $(if $(filter test-%,$(1)),ARGS,$(READS_$(1)))
STRAY := $(firstword $(filter-out $(foreach t,$(MAKECMDGOALS),$(call reads,$t)) $(SETTINGS),$(GIVEN)))
ifneq ($(and $(STRAY),$(MAKECMDGOALS)),)
  $(error make $(MAKECMDGOALS) does not read $(STRAY). It reads: $(or $(sort $(foreach t,$(MAKECMDGOALS),$(call reads,$t))),no variable))
endif

ifneq ($(filter-out x86_64 amd64 arm64,$(ARCH)),)
  $(error ARCH is x86_64 or arm64. Received: $(ARCH))
endif

# Without this, a program takes the missing name for the current folder.
REQUIRED_import := MODEL
REQUIRED_adopt := MODEL
REQUIRED_split := TO
$(foreach t,$(MAKECMDGOALS),$(foreach v,$(REQUIRED_$t),$(if $($v),,$(error make $t needs $v=... `make` prints an example))))

help:
	@awk -F':.*## ' '/^##@ / {printf "%s%s\n", (n++ ? "\n" : ""), substr($$0, 5)} \
	  /^[a-zA-Z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nOther programs: $(VENVS)/test/bin/python -m NAME --help, where NAME is benchmarks or\n'
	@printf 'deploy.costs, and $(VENVS)/training/bin/python -m training or converter.\n'
	@printf 'Times: two cores, with the environment in place. The first run of a target sets it up (1 to 4 min).\n'

python = $(VENVS)/$(1)/bin/python
DATA = $${DATASET:+--dataset "$$DATASET"}
GROUP = $${GROUPS_FILE:+--groups "$$GROUPS_FILE"}
SOURCES = $(DATA) $${WEIGHTS:+--backbone-weights "$$WEIGHTS"}
# --size "$$SIZE" where SIZE is given.
lower = $(shell echo $(1) | tr A-Z a-z)
OPTION = $${$(1):+--$(lower) "$$$(1)"}
# What the model is called, as far as the command line says it.
WORDS = $(foreach name,$(WORD_NAMES),$(call OPTION,$(name)))
WITH_MODEL = $${MODEL:+env MODEL_URI="$$MODEL"}

##@ Start here

predict: $(VENVS)/serving/.ok ## classify an example, or IMAGE=file, folder or pattern, or URL=...: FORMAT=json or csv, EXPLAIN=out.png, MODEL=...
	@$(WITH_MODEL) $(call python,serving) -m tools.predict $${URL:+--url "$$URL"} $${EXPLAIN:+--explain "$$EXPLAIN"} $${FORMAT:+--format "$$FORMAT"} -- $${IMAGE:+"$$IMAGE"}

run: $(VENVS)/serving/.ok ## serve the HTTP API and the demo page: PORT=8080 MODEL=...
	@$(WITH_MODEL) $(call python,serving) -m tools.serve --port "$${PORT:-8080}"

EVERYDAY := not training and not browser and not container and not budget
# The floor is what the tests reach. Without ARGS, because a part of the tests reaches less.
COVERAGE = $(if $(ARGS),,--cov --cov-report=term:skip-covered)
test: $(VENVS)/test/.ok ## test everything that is deployed (3 min)
	$(call python,test) -m pytest -m "$(EVERYDAY)" $(COVERAGE) $(ARGS)

model: $(VENVS)/training/.ok ## train, convert, check (1 h, resumable): DATASET=folder GROUPS=file.csv RUN=name TITLE='Which screw is it?' SUBJECT=screw CONFIG=file.toml TRAIN='--size 224'
	@set -e; run="runs/$${RUN:-rebuilt}"; output="$${OUTPUT:-$$run/model.tflite}"; \
	$(call python,training) -m training train --name "$${RUN:-rebuilt}" $(SOURCES) $(GROUP) $${CONFIG:+--config "$$CONFIG"} --no-next $(TRAIN); \
	$(call python,training) -m converter "$$run/model.keras" --recipe "$${RECIPE:-int8_float_head}" --activation-map --output "$$output" --no-next $(WORDS) $(DATA); \
	$(call python,training) -m training evaluate "$$output" "$$run" --split validation --out "$$run/evaluation" $(DATA); \
	$(call python,training) -m training card "$$run/evaluation/report.json" --out "$$run/card.md"; \
	echo "wrote $$output, $$run/evaluation/report.html and $$run/card.md"; \
	$(PYTHON) -c 'import shlex, sys; print("Next: make adopt MODEL=" + shlex.quote(sys.argv[1]))' "$$output"

deploy: $(VENVS)/sam/.ok ## check, build and deploy to AWS (15 min): STACK=name PARAMS='MemoryMb=3008' YES=1
	@SAM_CLI_TELEMETRY=0 $(call python,sam) -m deploy.up $(STACK_OPTION) $${YES:+--yes} $(PARAMETERS)

##@ Serve

emulate: $(VENVS)/test/.ok ## run the handler under Lambda's emulator: PORT=8080 MODEL=...
	@$(WITH_MODEL) $(call python,test) -m tools.emulator --port "$${PORT:-8080}"

BUILD_ARGUMENT = $(if $($(1)),--build-arg $(1)="$$$(1)")
image: ## build the container image (5 min): MODEL=... ARCH=arm64 BASE_IMAGE=... BOTO3=locked HEIC=0
	@# Lambda refuses an index of image and attestation. Another model needs a folder of its own.
	@$(PYTHON) $(CHECK_PYTHON)
	@set -e; name="$$($(PYTHON) -m deploy.image.names $${MODEL:+"$$MODEL"})"; context=.; if [ -n "$$MODEL" ]; then \
	  [ -f "$$MODEL" ] || { echo "There is no model $$MODEL. MODEL= names a .tflite file" >&2; exit 1; }; \
	  context=$$(mktemp -d); trap 'rm -r "$$context"' EXIT; \
	  cp -r Dockerfile .dockerignore lambda_function requirements deploy "$$context"; \
	  cp "$$MODEL" "$$context/lambda_function/model.tflite"; fi; \
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --platform linux/$(if $(filter arm64,$(ARCH)),arm64,amd64) $(foreach name,BASE_IMAGE REQUIREMENTS BOTO3 HEIC,$(call BUILD_ARGUMENT,$(name))) --tag "$$name" "$$context"

##@ Train

data: $(VENVS)/test/.ok ## fetch the clothing data set at its pinned commit to data/ (3 min)
	@$(call python,test) -m training data

data-check: $(VENVS)/test/.ok ## count a folder's images and name its problems (1 min): DATASET=folder
	@$(call python,test) -m training data-check $(DATA) $(ARGS)

split: $(VENVS)/test/.ok ## split a folder of class folders (1 min): DATASET=folder TO=folder GROUPS=file.csv
	@$(call python,test) -m training split $(DATA) --to "$$TO" $(GROUP) $(ARGS)

fetch: $(VENVS)/training/.ok ## fetch ImageNet weights and wheels to data/, for work without a network (5 min)
	@$(call python,training) -m training weights
	@$(call python,training) -m pip download -qq --disable-pip-version-check --require-hashes -r requirements/training.txt -d data/wheels

train: $(VENVS)/training/.ok ## fine-tune Xception (1 h): DATASET=... WEIGHTS=... ARGS='--name mine --size 224'
	@$(call python,training) -m training train $(SOURCES) $(ARGS)

steps: $(VENVS)/training/.ok ## the course, step by step (each some minutes): STEP=1 to 9, all, or table
	@$(call python,training) -m training steps "$${STEP:-all}" $(SOURCES) $(ARGS)

convert: $(VENVS)/training/.ok ## convert and check a model (5 min): MODEL=runs/mine/model.keras RECIPE=... OUTPUT=...
	@$(call python,training) -m converter "$${MODEL:-runs/$${RUN:-rebuilt}/model.keras}" --recipe "$${RECIPE:-int8_float_head}" $(call OPTION,OUTPUT) $(WORDS) $(DATA) $(ARGS)

# A TFLite file needs no TensorFlow.
IMPORT_WITH := $(if $(filter %.tflite,$(lastword $(MODEL))),test,training)
import: $(VENVS)/$(IMPORT_WITH)/.ok ## take in a Keras or TFLite model from elsewhere (2 min): MODEL=file LABELS=a,b,c NORMALISATION=... RESIZE=...
	@$(call python,$(IMPORT_WITH)) -m converter import "$$MODEL" $(foreach name,LABELS SIZE NORMALISATION RESIZE $(WORD_NAMES) DATASET RECIPE OUTPUT,$(call OPTION,$(name))) $(ARGS)

adopt: $(VENVS)/test/.ok ## make a converted or imported model the one that is served: MODEL=model.tflite EXAMPLE=photo.jpg YES=1
	@$(call python,test) -m converter adopt "$$MODEL" $(call OPTION,EXAMPLE) $(DATA) $${YES:+--yes}

score: $(VENVS)/test/.ok ## score the shipped model on the test split again; it must repeat the record (1 min): GROUPS=file.csv
	@$(call python,test) -m training evaluate lambda_function/model.tflite --split test --must-be-recorded --no-gallery $(DATA) $(GROUP) $(ARGS)

##@ Test

check: $(VENVS)/test/.ok ## check lint, formatting and types (1 min): FIX=1 corrects the first two
	$(VENVS)/test/bin/ruff check $${FIX:+--fix} .
	$(VENVS)/test/bin/ruff format $(if $(FIX),,--check) .
	$(VENVS)/test/bin/mypy

# Of each suite: the environments that it needs (by default that of its name), and what the first of
# them runs.
NEEDS_container := test sam
NEEDS_arm64 := test
# pytest gets the files with such tests only: the others import what the environment does not have.
RUN_training = pytest -m training $$(grep -rl 'mark\.training' tests --include='test_*.py')
# Trains on JAX, on one device and on two, without TensorFlow.
RUN_jax = pytest -m training tests/training/test_train_jax.py
# WRITE_SCREENSHOTS=1 in the environment writes docs/images.
RUN_browser = pytest tests/browser
# Builds and runs the image, and SAM's local gateway.
RUN_container = tests.docker
# Needs Python 3.11. Fetching and the reading of requests use no package that differs here. The
# golden probabilities are those of ai-edge-litert.
RUN_tflite-runtime = pytest -p no:cacheprovider -m "$(EVERYDAY) and not emulator" tests/serving tests/tools/test_serve.py $(addprefix --ignore=tests/serving/,fetching http test_golden.py)
# Under QEMU, which is fetched. Skipped with a reason where it cannot be had.
RUN_arm64 = tools.arm64

.SECONDEXPANSION:
needs = $(or $(NEEDS_$(1)),$(1))
test-NAME: ## NAME is training (8 min), jax (3 min), browser (2 min), container (10 min), tflite-runtime (2 min), arm64 (5 min)
test-training test-jax test-browser test-container test-tflite-runtime test-arm64: test-%: $$(addprefix $$(VENVS)/,$$(addsuffix /.ok,$$(call needs,$$*)))
	$(if $(filter jax,$*),KERAS_BACKEND=jax) $(call python,$(firstword $(call needs,$*))) -m $(RUN_$*) $(ARGS)

##@ Operate

# Without STACK: the stack that was deployed from here.
STACK_OPTION = $${STACK:+--stack "$$STACK"}
PARAMETERS = $${PARAMS:+"$$PARAMS"}

preflight: $(VENVS)/sam/.ok ## check what would stop a deployment; changes nothing: STACK=name PARAMS='ApiAuth=iam'
	@$(call python,sam) -m deploy.preflight $(STACK_OPTION) $(PARAMETERS)

smoke: $(VENVS)/sam/.ok ## test a deployed stack: STACK=name, or URL=https://... with IAM=1 or TOKEN=...
	@$(call python,sam) -m deploy.smoke $(STACK_OPTION) $${IAM:+--iam} $${URL:+"$$URL"}

bulk: $(VENVS)/sam/.ok ## deploy bulk runs: PARAMS='ImageBucket=photos ResultBucket=results', or repeat lost batches: RETRY=run
	@SAM_CLI_TELEMETRY=0 $(call python,sam) -m deploy.side.bulk $(STACK_OPTION) $${YES:+--yes} $${RETRY:+--retry "$$RETRY"} $(PARAMETERS)

events: $(VENVS)/sam/.ok ## deploy the classification of uploads: PARAMS='ImageBucket=uploads ResultBucket=results'
	@SAM_CLI_TELEMETRY=0 $(call python,sam) -m deploy.side.events $(STACK_OPTION) $${YES:+--yes} $(PARAMETERS)

destroy: $(VENVS)/sam/.ok ## remove the stack and its images from AWS; asks first: STACK=name
	@SAM_CLI_TELEMETRY=0 $(call python,sam) -m deploy.destroy $(STACK_OPTION) $${YES:+--yes}

##@ Maintain

# The other locks hold for every platform and every supported Python.
LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
UNIVERSAL := --universal --python-version 3.11
lock: ## write the hash-locked requirement files again (needs uv, 2 min)
	cd requirements && for name in serving s3 test training jax jax-cuda browser sam benchmarks peer-ours peer-onnx peer-tensorflow; do \
	  $(LOCK) $(UNIVERSAL) $$name.in -o $$name.txt || exit 1; done
	cd requirements && $(LOCK) --python-version 3.11 --python-platform x86_64-manylinux2014 --only-binary :all: tflite-runtime.in -o tflite-runtime.txt
	cd requirements && $(LOCK) --python-version 3.11 --python-platform x86_64-manylinux_2_28 peer-course.in -o peer-course.txt

# --- virtual environments ----------------------------------------------------
# Each is made of its locks, again when one of them changes.

LOCKS_serving := serving
LOCKS_test := serving s3 test
LOCKS_tflite-runtime := tflite-runtime s3 test
LOCKS_training := training
LOCKS_jax := jax
LOCKS_browser := serving s3 test browser
LOCKS_sam := sam
LOCKS_benchmarks := training benchmarks
ENVIRONMENTS := serving test tflite-runtime training jax browser sam benchmarks

# tflite-runtime has no wheels after Python 3.11.
VENV_PYTHON = $(if $(filter tflite-runtime,$(1)),$(PYTHON311),$(PYTHON))
# SAM requires extras of packages that it pins without them, and pip's hash mode does not resolve
# those. The lock is complete, so pip has nothing to resolve.
NO_DEPS_sam := --no-deps
CHECK_PYTHON := -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed. This is %d.%d. Name one: make PYTHON=python3.12" % v[:2])'

$(ENVIRONMENTS:%=$(VENVS)/%/.ok): $(VENVS)/%/.ok: $$(addprefix requirements/,$$(addsuffix .txt,$$(LOCKS_$$*)))
	@echo "setting up $(@D) (once, up to 4 minutes)"
	@$(call VENV_PYTHON,$*) $(CHECK_PYTHON)
	@$(call VENV_PYTHON,$*) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes $(NO_DEPS_$*) $(addprefix -r ,$^)
	@touch $@
