"""What a container image adds to its base, unpacked: ours beside a course-style one.

    python -m benchmarks image-size            builds, counts, prints the table
    python -m benchmarks image-size --write    also writes benchmarks/results/image_size.json and
                                               the table in docs/deploy-reference.md

Ours is built by the project's Dockerfile. Course-style is what the course's Dockerfile does:
``pip install`` of tflite-runtime and keras-image-helper, then model and handler. Its lock is
requirements/peer-course.txt without the runtime client, which a base image brings. All stand on
the same base image, so course-style wheels (CPython 3.11's) are counted and never run. The course's
model is zeros of the size that ``compare`` measured: bytes are counted, not read.

Every file that the base does not have in the same size counts. There is no clock in it: the same
commit and base give the same figures.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.baselines import RUNTIME_CLIENT
from benchmarks.harness import RESULTS, command_line, origin, write_result
from lambda_function import REPOSITORY
from tools.container_engine import STANDIN, default_base_image, run_in_engine
from training.files import markdown_table, read_json, replace_marked, write_text

DOCUMENT = REPOSITORY / "docs" / "deploy-reference.md"
BEGIN = "<!-- image size: written by `python -m benchmarks image-size --write` -->"
END = "<!-- end of image size -->"
BAR = 0.80  # of the course-style image, for the default
TITLES = {
    "course": "course-style: tflite-runtime, float32 model of 299 pixels",
    "ours": "this, `BOTO3=base` (default)",
    "ours-boto3": "this, `BOTO3=locked`",
}
COURSE_PYTHON = "3.11"  # the newest that tflite-runtime has a wheel for
COURSE_DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY wanted.txt .
RUN python -m pip install -q --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
    %s --target "${LAMBDA_TASK_ROOT}" -r wanted.txt && rm wanted.txt
COPY clothing-model.tflite lambda_function.py ${LAMBDA_TASK_ROOT}/
"""
LISTING = """
import json, os
kept_out = ("/proc", "/sys", "/dev", "/run", "/tmp", "/etc/hosts", "/etc/hostname",
            "/etc/resolv.conf", "/etc/mtab")
sizes = {}
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in kept_out]
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path) and path not in kept_out:
            sizes[path] = os.path.getsize(path)
print(json.dumps(sizes))
"""


def main(arguments: list[str]) -> None:
    """Build, count, print and keep the result."""
    parser = command_line("image-size", __doc__)
    parser.add_argument("--write", action="store_true", help="result file and document")
    options = parser.parse_args(arguments)
    if STANDIN.is_dir() and "CONTAINER_BASE" not in os.environ:
        command = [sys.executable, "-m", "benchmarks", "image-size", *arguments]
        sys.exit(run_in_engine(command))
    result = measure()
    print(table(result))
    if options.write:
        write_result("image_size", result)
        marks = (BEGIN, END)
        write_text(DOCUMENT, replace_marked(DOCUMENT.read_text(), marks, table(result)))


def measure() -> dict[str, Any]:
    """Build the images, count their files, and remove them."""
    record = origin()
    base = default_base_image()
    files = _listing(base)
    images = {
        "ours": _build("ours", REPOSITORY, base, files),
        "ours-boto3": _build("ours-boto3", REPOSITORY, base, files, "--build-arg", "BOTO3=locked"),
    }
    with tempfile.TemporaryDirectory() as folder:
        write_course_context(Path(folder), course_model_bytes())
        images["course"] = _build("course", Path(folder), base, files)
    is_standin = os.environ.get("CONTAINER_BASE") == "stand-in"
    shown = "a stand-in for AWS's base image (Debian's Python 3.13)" if is_standin else base
    return {**record, "base": shown, "images": images}


def count_added(base: dict[str, int], image: dict[str, int]) -> dict[str, int]:
    """Return the bytes that an image adds to its base, by kind.

    Args:
        base: size of every file, by path.
        image: the same of the image.
    """
    added = {path: size for path, size in image.items() if base.get(path) != size}
    model = sum(size for path, size in added.items() if path.endswith(".tflite"))
    byte_code = sum(size for path, size in added.items() if path.endswith(".pyc"))
    total = sum(added.values())
    return {
        "added_bytes": total,
        "model_bytes": model,
        "byte_code_bytes": byte_code,
        "other_bytes": total - model - byte_code,
    }


def table(result: dict[str, Any]) -> str:
    """Return a result as Markdown: the table, and how it was made."""
    images, source = result["images"], result["provenance"]
    columns = ["added over the base image, unpacked, MB"]
    columns += ["libraries:", "byte code:", "model:", "all:", ":"]
    kinds = ("other_bytes", "byte_code_bytes", "model_bytes", "added_bytes")
    rows = [
        [
            title,
            *(f"{images[name][kind] / 1e6:.1f}" for kind in kinds),
            f"{images[name]['added_bytes'] / images['course']['added_bytes']:.2f}",
        ]
        for name, title in TITLES.items()
    ]
    strict = images["ours"]["added_bytes"] / bar_bytes(result) * BAR
    made = (
        f"Counted on {source['date']} at commit `{source['commit']}` in images built on "
        f"{result['base']}. `python -m benchmarks image-size` counts again. Without the byte code "
        f"that the course-style pip compiles, the default is at {strict:.2f}. `tests/docker` "
        f"holds it to at most {BAR:.2f}."
    )
    return f"{markdown_table(columns, rows)}\n{made}"


def bar_bytes(result: dict[str, Any]) -> float:
    """Return what the default may add: the bar's share of course-style, byte code not counted."""
    course = result["images"]["course"]
    return float(BAR * (course["added_bytes"] - course["byte_code_bytes"]))


def write_course_context(folder: Path, model_bytes: int) -> None:
    """Write the folder that a course-style image is built from."""
    machine = platform.machine()
    # The image of Python 3.13 has glibc 2.34.
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(34, 16, -1)]
    names.append(f"manylinux2014_{machine}")
    options = [f"--python-version {COURSE_PYTHON} --implementation cp --abi cp311 --abi none"]
    options += [f"--platform {name}" for name in names]
    (folder / "Dockerfile").write_text(COURSE_DOCKERFILE % " ".join(options))
    lock = (REPOSITORY / "requirements" / "peer-course.txt").read_text()
    (folder / "wanted.txt").write_text(_course_lock(lock))
    handler = (REPOSITORY / "benchmarks" / "baselines" / "course.py").read_text()
    (folder / "lambda_function.py").write_text(handler)
    with (folder / "clothing-model.tflite").open("wb") as model:
        model.truncate(model_bytes)


def course_model_bytes() -> int:
    """Return the size of the course's model, as ``compare`` measured it."""
    lanes = read_json(RESULTS / "compare.json")["handlers"]
    figures = next(iter(lanes.values()))["course"]
    return int(figures["artifact_mb"] * 1e6)


def _course_lock(lock: str) -> str:
    """Return a lock without the runtime client."""
    text = "\n".join(line for line in lock.splitlines() if not line.lstrip().startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if line.partition("==")[0] not in RUNTIME_CLIENT) + "\n"


def _build(
    name: str, context: Path, base: str, base_files: dict[str, int], *options: str
) -> dict[str, int]:
    tag = f"image-size:{name}"
    _docker("build", "--build-arg", f"BASE_IMAGE={base}", *options, "--tag", tag, str(context))
    try:
        return count_added(base_files, _listing(tag))
    finally:
        _docker("image", "rm", "--force", tag)


def _listing(image: str) -> dict[str, int]:
    listing = _docker("run", "--rm", "--user", "0", "--entrypoint", "python", image, "-c", LISTING)
    sizes: dict[str, int] = json.loads(listing)
    return sizes


def _docker(*arguments: str) -> str:
    environment = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"docker {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
