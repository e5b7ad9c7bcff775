"""The handlers to measure: this project's function and those that it is compared with.

Each baseline is staged as its container image would be: one folder with the handler and its model
under the names that the handler expects, and a virtual environment from its own hash lock.
``build.py`` writes the models from a trained one.
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

from lambda_function import REPOSITORY, SHIPPED_MODEL
from tools.emulator import HANDLER, Emulator
from tools.gateway import http_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks.masking import Lane

STAGE = REPOSITORY / ".cache" / "benchmarks"
MODELS = STAGE / "models"
SOURCES = Path(__file__).resolve().parent
REQUIREMENTS = REPOSITORY / "requirements"
PRUNE = REPOSITORY / "deploy" / "image" / "prune.py"
COURSE_SIZE = 299  # pixels, height and width of the course's input
CORE = max(os.sched_getaffinity(0))  # the handlers' own core. Measuring runs on the others.
TIMEOUT_S = 120  # TensorFlow's start on a busy machine takes longer than an API would wait
# What our image sets (Dockerfile). tests/deploy/test_dockerfile.py checks it.
IMAGE_ENVIRONMENT = {"RES_OPTIONS": "timeout:1 attempts:2", "OPENBLAS_NUM_THREADS": "1"}
# AWS's base image brings the runtime client: it is no dependency of the function.
RUNTIME_CLIENT = {"awslambdaric", "simplejson", "snapshot-restore-py"}
_RUNTIMES = {"ai-edge-litert", "tflite-runtime", "onnxruntime", "tensorflow", "numpy", "pillow"}


class BaselineError(RuntimeError):
    """A handler cannot be prepared here. The message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A handler to measure.

    Attributes:
        name: short, used for folders and result keys.
        title: for tables.
        python: version of the interpreter, such as "3.11". None is the running one.
        locks: requirement files to install, by name, without ``.txt``.
        source: the handler's file in this folder. None for this project's function.
        model: file name under which the handler expects its model.
        size: height and width of the model's input, in pixels. None for this project's function.
        models: folder with the models, one folder a size.
        pruned: whether ``deploy/image/prune.py`` removes the files that the function never loads.
    """

    name: str
    title: str
    python: str | None
    locks: tuple[str, ...]
    source: str | None
    model: str
    size: int | None = COURSE_SIZE
    models: Path = MODELS
    pruned: bool = False

    @property
    def cwd(self) -> Path:
        """Folder that the handler runs in."""
        return STAGE / "staged" / self.name if self.source else REPOSITORY

    @property
    def artifact(self) -> Path:
        """The model file that the handler loads."""
        return self.cwd / self.model if self.source else SHIPPED_MODEL

    @property
    def venv(self) -> Path:
        """The handler's virtual environment."""
        return REPOSITORY / ".venv" / self.locks[-1]

    @property
    def shown(self) -> str:
        """Title with the input size, for tables."""
        return f"{self.title}, {self.size} px" if self.size else self.title

    @property
    def takes_batches(self) -> bool:
        """Whether one request may carry several URLs."""
        return self.source is None

    def event(self, url: str) -> dict[str, Any]:
        """Return the event that asks for the prediction of one image."""
        if self.source:
            return {"url": url}
        return http_event("POST", "/predict", json_body={"url": url})

    def prepare(self) -> None:
        """Make the virtual environment and the folder, unless they are there.

        Raises:
            BaselineError: no fitting Python, no network, or no model.
        """
        self.prepare_environment()
        self.stage()

    def prepare_environment(self) -> None:
        """Make the virtual environment from the locks, unless it is there.

        Raises:
            BaselineError: no fitting Python, or no network.
        """
        files = [REQUIREMENTS / f"{lock}.txt" for lock in self.locks]
        wanted = "".join(file.read_text() for file in [*files, *([PRUNE] if self.pruned else [])])
        stamp = self.venv / "locks.txt"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"setting up {self.venv.relative_to(REPOSITORY)} (once)", file=sys.stderr, flush=True)
        _run([find_python(self.python), "-m", "venv", "--clear", str(self.venv)])
        python = str(self.venv / "bin" / "python")
        options = [option for file in files for option in ("-r", str(file))]
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", *options])
        if self.pruned:
            _run([sys.executable, str(PRUNE), str(self._site_packages())])
            _run([python, "-m", "compileall", "-q", str(self._site_packages())])
        stamp.write_text(wanted)

    def stage(self) -> None:
        """Put the handler and its model where they run, as its image would.

        Raises:
            BaselineError: there is no model for it.
        """
        if self.source is None:
            if not SHIPPED_MODEL.exists():
                raise BaselineError(f"{SHIPPED_MODEL.relative_to(REPOSITORY)} is missing")
            return
        model = self.models / str(self.size) / self.model
        if not model.exists():
            raise BaselineError(
                f"{model} is missing. `python -m benchmarks models MODEL.keras` writes it"
            )
        self.cwd.mkdir(parents=True, exist_ok=True)
        handler = (SOURCES / self.source).read_text().replace(str(COURSE_SIZE), str(self.size))
        (self.cwd / "lambda_function.py").write_text(handler)
        self.artifact.unlink(missing_ok=True)
        self.artifact.hardlink_to(model)

    def emulator(
        self,
        lane: Lane,
        *,
        memory_mb: int,
        trusted_hosts: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        core: int | None = CORE,
    ) -> Emulator:
        """Return a fresh emulator of this handler, not started.

        Args:
            lane: instruction sets that the handler sees.
            memory_mb: as the function would have.
            trusted_hosts: that it may fetch from.
            env: further variables.
            core: the one core that it may use, as a Lambda function of 1,769 MB has one vCPU. Some
                libraries start a thread for each core that they see. None allows all cores.
        """
        return Emulator(
            "lambda_function.lambda_handler" if self.source else HANDLER,
            python=lane.python(self.venv),
            cwd=self.cwd,
            env={
                **({} if self.source else IMAGE_ENVIRONMENT),
                "TRUSTED_IMAGE_HOSTS": ",".join(trusted_hosts),
                **lane.environment,
                **(env or {}),
            },
            timeout_s=TIMEOUT_S,
            memory_mb=memory_mb,
            core=core,
        )

    def installed_bytes(self) -> int:
        """Return the size of the installed dependencies on disk, byte code included.

        Without pip and without the Lambda runtime client, which AWS's base image brings.
        """
        skipped = {"pip", *RUNTIME_CLIENT}
        total = 0
        for package in importlib.metadata.distributions(path=[str(self._site_packages())]):
            if _name_of(package) not in skipped:
                files = (Path(str(file.locate())) for file in package.files or ())
                total += sum(file.stat().st_size for file in files if file.is_file())
        return total

    def python_version(self) -> str:
        """Return the version of the interpreter in the handler's environment."""
        code = "import platform; print(platform.python_version())"
        command = [str(self.venv / "bin" / "python"), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def versions(self) -> dict[str, str]:
        """Return the versions of what runs the model, by package name."""
        packages = importlib.metadata.distributions(path=[str(self._site_packages())])
        versions = {_name_of(package): package.version for package in packages}
        return {name: versions[name] for name in sorted(_RUNTIMES & versions.keys())}

    def _site_packages(self) -> Path:
        return next(self.venv.glob("lib/python3*/site-packages"))


COURSE = Baseline(
    name="course",
    title="course, tflite-runtime, float32",
    python="3.11",  # the newest for which tflite-runtime has a wheel
    locks=("peer-course",),
    source="course.py",
    model="clothing-model.tflite",
)
COURSE_ONNX = Baseline(
    name="onnx",
    title="course, onnxruntime, float32",
    python=None,
    locks=("peer-onnx",),
    source="course_onnx.py",
    model="clothing-model.onnx",
)
SAM_TENSORFLOW = Baseline(
    name="tensorflow",
    title="TensorFlow (SAM template), float32",
    python=None,
    locks=("peer-tensorflow",),
    source="sam_tensorflow.py",
    model="clothing-model.keras",
)
OURS = Baseline(
    name="ours",
    title="this project, as shipped",
    python=None,
    locks=("serving", "peer-ours"),
    source=None,
    model=SHIPPED_MODEL.name,
    size=None,
    pruned=True,
)
HANDLERS = (OURS, COURSE, COURSE_ONNX, SAM_TENSORFLOW)


def at_size(handler: Baseline, size: int) -> Baseline:
    """Return the same handler with its model and its preprocessing at another size, in pixels."""
    return dataclasses.replace(handler, name=f"{handler.name}-{size}", size=size)


def find_python(version: str | None) -> str:
    """Return an interpreter: ``PYTHON3_11`` of the environment, from the PATH, or the running one.

    Raises:
        BaselineError: there is none of this version.
    """
    if version is None or sys.version.startswith(f"{version}."):
        return sys.executable
    variable = f"PYTHON{version.replace('.', '_')}"
    python = os.environ.get(variable) or shutil.which(f"python{version}")
    if not python:
        raise BaselineError(
            f"Python {version} is needed for this baseline and is not on the PATH. "
            f"Name it: {variable}=/path/to/python{version}"
        )
    return python


def _name_of(package: importlib.metadata.Distribution) -> str:
    return package.metadata["Name"].lower().replace("_", "-")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BaselineError(f"{' '.join(command[:4])} ... failed: {last}")
