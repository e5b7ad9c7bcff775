"""The handlers that ours is compared with, each in its own virtual environment and folder.

A peer is staged the way its container image would be: one folder with the handler and its
model under the names that the handler expects, and a virtual environment made from the peer's
own hash lock. The models are written by ``build.py`` from our release's weights.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_function import SHIPPED_MODEL
from tools.emulator import HANDLER, REPOSITORY, Emulator, http_event

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGE = REPOSITORY / ".cache" / "benchmarks"
MODELS = STAGE / "models"
SOURCES = Path(__file__).resolve().parent
REQUIREMENTS = REPOSITORY / "requirements"
SLIM = REPOSITORY / "deploy" / "image" / "prune.py"
EXAMPLES = REPOSITORY / "examples"
COURSE_SIZE = 299  # pixels, height and width of the course's input
SOURCE_NOTE = "source.json"  # beside the models: what they were made from
CORE = max(os.sched_getaffinity(0))  # the handlers' own; measuring goes on on the others
TIMEOUT_S = 120  # TensorFlow's start on a busy machine takes longer than an API would wait
# What our image sets (Dockerfile). tests/deploy/test_dockerfile.py holds it.
IMAGE_ENVIRONMENT = {"RES_OPTIONS": "timeout:1 attempts:2", "OPENBLAS_NUM_THREADS": "1"}
# AWS's base image brings the runtime client: it is no dependency of the function.
_RUNTIME_CLIENT = {"awslambdaric", "simplejson", "snapshot-restore-py"}


class PeerError(RuntimeError):
    """A peer cannot be prepared here; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """A handler to measure.

    Attributes:
        name: short, used for folders and result keys.
        title: for tables.
        python: version of the interpreter, such as "3.11"; the newest here where None.
        locks: requirement files to install, by name, without ``.txt``.
        source: the handler's file in this folder; None for ours.
        model: file name under which the handler expects its model.
        size: height and width of the model's input, in pixels; None for ours.
        models: folder with the models, one folder a size.
        slimmed: whether ``deploy/image/prune.py`` removes what the function never loads.
    """

    name: str
    title: str
    python: str | None
    locks: tuple[str, ...]
    source: str | None
    model: str
    size: int | None = COURSE_SIZE
    models: Path = MODELS
    slimmed: bool = False

    @property
    def cwd(self) -> Path:
        """Folder that the handler runs in."""
        return STAGE / "staged" / self.name if self.source else REPOSITORY

    @property
    def artifact(self) -> Path:
        """The model's file as the handler loads it."""
        return self.cwd / self.model if self.source else SHIPPED_MODEL

    @property
    def venv(self) -> Path:
        """The peer's virtual environment."""
        return REPOSITORY / ".venv" / self.locks[-1]

    @property
    def shown(self) -> str:
        """Title with the input's size, for tables."""
        return f"{self.title}, {self.size} px" if self.size else self.title

    def event(self, url: str) -> dict[str, Any]:
        """Return the event that asks this peer about one picture."""
        if self.source:
            return {"url": url}
        return http_event("POST", "/predict", json_body={"url": url})

    @property
    def environment(self) -> dict[str, str]:
        """What the handler's image sets; the peers' descriptions set nothing."""
        return {} if self.source else IMAGE_ENVIRONMENT

    @property
    def takes_batches(self) -> bool:
        """Whether one request may carry several addresses."""
        return self.source is None

    def prepare(self) -> None:
        """Make the environment and the folder; quick when they are there already.

        Raises:
            PeerError: no fitting Python, no network, or no model for it.
        """
        self._prepare_environment()
        self.stage()

    def stage(self) -> None:
        """Put the handler and its model where they run, as its image would.

        Raises:
            PeerError: there is no model for it.
        """
        if self.source is None:
            if not SHIPPED_MODEL.exists():
                raise PeerError(f"{SHIPPED_MODEL.relative_to(REPOSITORY)} is missing")
            return
        model = self.models / str(self.size) / self.model
        if not model.exists():
            raise PeerError(
                f"{model} is missing: `python -m benchmarks.baselines.build MODEL.keras` writes it"
            )
        self.cwd.mkdir(parents=True, exist_ok=True)
        handler = (SOURCES / self.source).read_text().replace(str(COURSE_SIZE), str(self.size))
        (self.cwd / "lambda_function.py").write_text(handler)
        self.artifact.unlink(missing_ok=True)
        self.artifact.hardlink_to(model)

    def emulator(self, *, memory_mb: int, trusted_hosts: Iterable[str] = ()) -> Emulator:
        """Return a fresh emulator of this handler, not started.

        On one core, as a Lambda function of 1,769 MB has one vCPU: the libraries that start a
        thread for each core they see would otherwise be given more than the others.
        """
        return Emulator(
            "lambda_function.lambda_handler" if self.source else HANDLER,
            python=self.venv / "bin" / "python",
            cwd=self.cwd,
            env=self.environment | {"TRUSTED_IMAGE_HOSTS": ",".join(trusted_hosts)},
            timeout_s=TIMEOUT_S,
            memory_mb=memory_mb,
            core=CORE,
        )

    def installed_bytes(self) -> int:
        """Return the size on disk of the dependencies, byte code included, as the image has them.

        Without pip and without the Lambda runtime client, which AWS's base image brings.
        """
        skipped = {"pip", *_RUNTIME_CLIENT}
        total = 0
        for found in importlib.metadata.distributions(path=[str(self._site_packages())]):
            if found.metadata["Name"].lower().replace("_", "-") not in skipped:
                files = (Path(str(file.locate())) for file in found.files or ())
                total += sum(file.stat().st_size for file in files if file.is_file())
        return total

    def python_version(self) -> str:
        """Return the version of the interpreter in the peer's environment."""
        code = "import platform; print(platform.python_version())"
        command = [str(self.venv / "bin" / "python"), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def versions(self) -> dict[str, str]:
        """Return the versions of what runs the model, by package name."""
        shown = {"ai-edge-litert", "tflite-runtime", "onnxruntime", "tensorflow", "numpy", "pillow"}
        found = importlib.metadata.distributions(path=[str(self._site_packages())])
        names = {item.metadata["Name"].lower().replace("_", "-"): item.version for item in found}
        return {name: names[name] for name in sorted(shown & names.keys())}

    def _prepare_environment(self) -> None:
        files = [REQUIREMENTS / f"{lock}.txt" for lock in self.locks]
        recipe = [*files, SLIM] if self.slimmed else files
        wanted = "".join(file.read_text() for file in recipe)
        stamp = self.venv / "locks.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"setting up {self.venv.relative_to(REPOSITORY)} (once)", file=sys.stderr, flush=True)
        _run([_python(self.python), "-m", "venv", "--clear", str(self.venv)])
        pip = [str(self.venv / "bin" / "python"), "-m", "pip", "install", "-qq"]
        _run([*pip, "--disable-pip-version-check", "--require-hashes", *_as_options(files)])
        if self.slimmed:
            _run([sys.executable, str(SLIM), str(self._site_packages())])
            compileall = [str(self.venv / "bin" / "python"), "-m", "compileall", "-q"]
            _run([*compileall, str(self._site_packages())])
        stamp.write_text(wanted)

    def _site_packages(self) -> Path:
        return next(self.venv.glob("lib/python3*/site-packages"))


COURSE = Peer(
    name="course",
    title="course, tflite-runtime, float32",
    python="3.11",  # the newest for which tflite-runtime has a wheel
    locks=("peer-course",),
    source="course.py",
    model="clothing-model.tflite",
)
COURSE_ONNX = Peer(
    name="onnx",
    title="course, onnxruntime, float32",
    python=None,
    locks=("peer-onnx",),
    source="course_onnx.py",
    model="clothing-model.onnx",
)
SAM_TENSORFLOW = Peer(
    name="tensorflow",
    title="TensorFlow (SAM template), float32",
    python=None,
    locks=("peer-tensorflow",),
    source="sam_tensorflow.py",
    model="clothing-model.keras",
)
OURS = Peer(
    name="ours",
    title="this project, as shipped",
    python=None,
    locks=("serving", "peer-ours"),
    source=None,
    model="model.tflite",
    size=None,
    slimmed=True,
)
PEERS = (OURS, COURSE, COURSE_ONNX, SAM_TENSORFLOW)


def at_size(peer: Peer, size: int) -> Peer:
    """Return the same peer with its model and its preprocessing at another size, in pixels."""
    return dataclasses.replace(peer, name=f"{peer.name}-{size}", size=size)


def _python(version: str | None) -> str:
    """Find an interpreter: ``PYTHON3_11`` in the environment, on the PATH, or this very one."""
    if version is None or sys.version.startswith(version + "."):
        return sys.executable
    named = os.environ.get(f"PYTHON{version.replace('.', '_')}")
    found = named or shutil.which(f"python{version}")
    if not found:
        raise PeerError(
            f"Python {version} is needed for this peer and is not on the PATH; "
            f"name it: PYTHON{version.replace('.', '_')}=/path/to/python{version}"
        )
    return found


def _as_options(files: list[Path]) -> list[str]:
    return [option for file in files for option in ("-r", str(file))]


def _run(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerError(f"{' '.join(command[:4])} ... failed: {last}")
