# The deployed image. Four build arguments (--build-arg):
#
#   BASE_IMAGE    AWS's Lambda image for Python. Pin a digest for releases (docs/deploy-reference.md)
#   REQUIREMENTS  serving (ai-edge-litert) or tflite-runtime (needs Python 3.11's image, x86_64)
#   HEIC          1: reads HEIC through libheif and libde265 (LGPL). 0: leaves them out
#   BOTO3         base: the base image's own, used for s3:// only. locked: requirements/s3.txt
#
# Builds with and without BuildKit. Lambda refuses multi-platform indexes and attestations, so `make
# image` sets one platform and BUILDX_NO_DEFAULT_ATTESTATIONS=1. `sam build` asks Docker for neither.
ARG BASE_IMAGE=public.ecr.aws/lambda/python:3.13

FROM ${BASE_IMAGE} AS build
ARG REQUIREMENTS=serving
ARG BOTO3=base
ARG HEIC=1
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Dependencies come first, so their layer stays while code and model change.
COPY requirements/${REQUIREMENTS}.txt requirements/s3.txt deploy/image/prune.py ./
RUN locked="-r ${REQUIREMENTS}.txt" \
 && case "${BOTO3}" in base) ;; locked) locked="$locked -r s3.txt" ;; \
      *) echo "BOTO3 must be base or locked. Received: ${BOTO3}" >&2; exit 1 ;; esac \
 && python -m pip install --require-hashes --only-binary=:all: --no-compile --target deps $locked \
 && python prune.py deps \
 && case "${HEIC}" in 1) ;; 0) rm -r deps/pi_heif* deps/_pi_heif* ;; \
      *) echo "HEIC must be 0 or 1. Received: ${HEIC}" >&2; exit 1 ;; esac

# A missing or unfit model ends the build with a sentence.
COPY lambda_function/ app/lambda_function/
COPY deploy/image/licences/ app/licences/
COPY deploy/image/check_model.py deploy/image/sbom.py ./
RUN PYTHONPATH=deps:app python check_model.py app/lambda_function/model.tflite \
 && PYTHONPATH=app python sbom.py deps app/lambda_function/model.tflite > app/sbom.cdx.json \
 && mkdir -p model/lambda_function && mv app/lambda_function/model.tflite model/lambda_function/

# Lambda's file system is read-only, so without byte code every cold start would compile. The byte
# code is not checked against the source (unchecked-hash) and holds no time. Equal input gives equal
# bytes. Lambda runs the function under a user of its own, who must be able to read all of it.
RUN for tree in deps app; do \
      python -m compileall -q -f --invalidation-mode unchecked-hash -s "$tree" -p "${LAMBDA_TASK_ROOT}" "$tree" \
      || exit 1; \
    done \
 && chmod -R u=rwX,go=rX deps model app

FROM ${BASE_IMAGE} AS function
# A name server that does not respond costs a lookup 2 s instead of 10 (lambda_function/fetching).
# NumPy's OpenBLAS starts a thread for each further core, and each spins for a while. That costs a
# cold start with two cores 30 ms of processor time (docs/decisions.md). Nothing here uses OpenBLAS.
ENV RES_OPTIONS="timeout:1 attempts:2" OPENBLAS_NUM_THREADS="1"
COPY --from=build /build/deps/ ${LAMBDA_TASK_ROOT}/
# The model and the code have layers of their own, so a deployment uploads only what changed.
COPY --from=build /build/model/ ${LAMBDA_TASK_ROOT}/
COPY --from=build /build/app/ ${LAMBDA_TASK_ROOT}/
CMD ["lambda_function.app.lambda_handler"]

# Lambda chooses an unprivileged user itself, and `sam local` adds files as the image's user. So
# template.yaml builds the stage above. Everywhere else this stage runs, as Lambda would.
FROM function
USER 993:990
