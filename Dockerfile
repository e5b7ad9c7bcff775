# The deployed image. Three things can be chosen, with --build-arg:
#
#   BASE_IMAGE    AWS's Lambda image for Python; pin a digest for releases (docs/deploy-reference.md)
#   REQUIREMENTS  serving (ai-edge-litert) or tflite-runtime (needs Python 3.11's image, x86_64)
#   BOTO3         base: the base image's own, used for s3:// only; locked: requirements/s3.txt
#
# Builds with and without BuildKit. Lambda refuses multi-platform indexes and attestations:
# `make image` sets one platform and BUILDX_NO_DEFAULT_ATTESTATIONS=1; so does `sam build`.
ARG BASE_IMAGE=public.ecr.aws/lambda/python:3.13

FROM ${BASE_IMAGE} AS build
ARG REQUIREMENTS=serving
ARG BOTO3=base
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Dependencies first: their layer stays while code and model change.
COPY requirements/${REQUIREMENTS}.txt requirements/s3.txt deploy/image/prune.py ./
RUN locked="-r ${REQUIREMENTS}.txt" \
 && case "${BOTO3}" in base) ;; locked) locked="$locked -r s3.txt" ;; \
      *) echo "BOTO3 must be base or locked. Received: ${BOTO3}" >&2; exit 1 ;; esac \
 && python -m pip install --require-hashes --only-binary=:all: --no-compile --target deps $locked \
 && python prune.py deps

# Refuse a build without a model, or with one that does not fit, with a sentence.
COPY lambda_function/ app/lambda_function/
COPY deploy/image/check_model.py deploy/image/sbom.py ./
RUN PYTHONPATH=deps:app python check_model.py app/lambda_function/model.tflite \
 && PYTHONPATH=app python sbom.py deps app/lambda_function/model.tflite > app/sbom.cdx.json

# Lambda's file system is read-only: without byte code every cold start would compile. It is never
# checked against the source (unchecked-hash), nor does it hold a time: equal input, equal bytes.
# Lambda runs the function under a user of its own, which has to be able to read all of it.
RUN for tree in deps app; do \
      python -m compileall -q -f --invalidation-mode unchecked-hash -s "$tree" -p "${LAMBDA_TASK_ROOT}" "$tree" \
      || exit 1; \
    done \
 && chmod -R u=rwX,go=rX deps app

FROM ${BASE_IMAGE} AS function
# A name server that does not answer costs a lookup 2 s, not 10 (see lambda_function/fetching/client.py).
# NumPy's OpenBLAS starts a thread for each further core that it sees, and each spins for a while:
# 30 ms of processor time a cold start with two cores (docs/decisions.md). Nothing here uses it.
ENV RES_OPTIONS="timeout:1 attempts:2" OPENBLAS_NUM_THREADS="1"
COPY --from=build /build/deps/ ${LAMBDA_TASK_ROOT}/
COPY --from=build /build/app/ ${LAMBDA_TASK_ROOT}/
CMD ["lambda_function.app.lambda_handler"]

# Lambda chooses the user itself (an unprivileged one), and `sam local` adds files as the image's
# user: template.yaml builds the stage above. Everywhere else this one runs, as Lambda would.
FROM function
USER 993:990
