"""Run the handler under AWS's Lambda Runtime Interface Emulator (RIE).

The RIE stands for the Lambda service inside AWS's base images. It starts the handler's process
through awslambdaric, keeps it warm, and passes it events. PyPI has it inside aws-sam-cli's wheel.
Only this one file is taken from the wheel, checked by its SHA-256 and kept in ``.cache/emulator``.

    with Emulator("lambda_function.app.lambda_handler") as emulator:
        reply = emulator.invoke({"url": "https://example.com/pants.jpg"})

Observed with version 1.170.0 of the wheel:

* The handler's init phase runs with the first invoke.
* An exception in the handler is HTTP 200 with ``errorType`` in the body. A timeout is HTTP 200 and
  plain text. ``invoke`` returns both as they are.
* The RIE silently cuts requests over 6 MB. ``invoke`` refuses them, as Lambda does.
* Overlapping invokes crash the RIE. ``invoke`` sends one at a time.
* The RIE does not enforce memory. Measure it: ``peak_resident_bytes``.

``python -m tools.emulator`` (``make emulate``) starts one and prints commands to paste.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_function import REPOSITORY, example_image
from tools.gateway import MAX_EVENT_BYTES, describe_port_error, http_event
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CACHE = REPOSITORY / ".cache" / "emulator"
SAM_LOCK = REPOSITORY / "requirements" / "sam.txt"
EXAMPLE = example_image()
EXAMPLE_PATH = f"/example{EXAMPLE.suffix}"
HANDLER = "lambda_function.app.lambda_handler"
INVOKE_PATH = "/2015-03-31/functions/function/invocations"
LOG_LINES = 20_000
SHA256 = {
    "x86_64": "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5",
    "arm64": "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21",
}
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")


class EmulatorError(RuntimeError):
    """The emulator could not be fetched, started or reached."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """The reply to one invoke.

    Attributes:
        body: the decoded JSON, or the text where it is not JSON (a timeout).
        elapsed_s: from sending the request to the last byte of the reply.
    """

    body: Any
    elapsed_s: float


class Emulator:
    """A handler running under the RIE on loopback, for the length of a ``with`` block.

    Attributes:
        log: the newest ``LOG_LINES`` lines that the handler and the RIE wrote.
        url: where to POST events.
        started_at: ``time.perf_counter()`` just before the emulator's process was started.
    """

    def __init__(
        self,
        handler: str = HANDLER,
        *,
        python: Path | str = sys.executable,
        cwd: Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        timeout_s: int = 30,
        memory_mb: int = 2048,
        port: int = 0,
        core: int | None = None,
    ) -> None:
        """Prepare. The ``with`` block starts the processes.

        Args:
            handler: dotted name of the function, importable from ``cwd``.
            python: interpreter of an environment that has awslambdaric.
            cwd: working directory of the handler: Lambda's ``LAMBDA_TASK_ROOT``.
            env: added to a small clean environment. Other variables do not reach the handler.
            timeout_s: of one invoke. The RIE enforces it.
            memory_mb: ``AWS_LAMBDA_FUNCTION_MEMORY_SIZE`` of the handler. Nothing enforces it.
            port: to listen on, 0 to 65535. 0 picks a free one.
            core: the processor core that all processes may use. The default is any.
        """
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.started_at = 0.0
        self.port = port
        self._chosen_port = port
        self._command = [str(python), "-m", "awslambdaric", handler]
        self._cwd = Path(cwd)
        self._env = _environment(self._cwd, env or {}, timeout_s, memory_mb)
        self._timeout_s = timeout_s
        self._core = core
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Emulator:
        binary = emulator_binary()
        for _ in range(3):  # a port found free may be taken before the RIE binds it
            self._start(binary)
            if self._listening():
                return self
            self.close()
        raise EmulatorError("The emulator did not start:\n" + "\n".join(self.log))

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL that takes invocations."""
        return f"http://127.0.0.1:{self.port}{INVOKE_PATH}"

    def invoke(self, event: Any, *, timeout_s: float | None = None) -> Reply:
        """Send one event and wait for the reply. Concurrent calls wait for each other.

        Args:
            event: any JSON value.
            timeout_s: how long to wait. The default is a little longer than the function may take.

        Raises:
            EmulatorError: the event is over Lambda's 6 MB, or the emulator has ended.
        """
        payload = json.dumps(event).encode()
        if len(payload) > MAX_EVENT_BYTES:
            raise EmulatorError(
                f"The event has {len(payload):,} bytes. Lambda accepts {MAX_EVENT_BYTES:,}"
            )
        wait_s = timeout_s or self._timeout_s + 15  # the init phase may take 10 s before it
        with self._lock:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=wait_s)
            start = time.perf_counter()
            try:
                connection.request("POST", INVOKE_PATH, payload)
                reply = connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                raise EmulatorError(f"No reply from the emulator: {error!r}") from error
            finally:
                connection.close()
            elapsed_s = time.perf_counter() - start
        return Reply(_decoded(reply), elapsed_s)

    @property
    def is_running(self) -> bool:
        """Whether the emulator's process runs."""
        return self._process is not None and self._process.poll() is None

    def handler_pid(self) -> int:
        """Return the id of the handler's process. The first invoke starts it.

        Raises:
            EmulatorError: the process is not running.
        """
        if self._process:
            for pid in _descendants(self._process.pid):
                if b"awslambdaric" in _read_bytes(f"/proc/{pid}/cmdline"):
                    return pid
        raise EmulatorError("The handler's process is not running: invoke it first")

    def resident_bytes(self) -> int:
        """Return the memory that the handler's process holds now."""
        return self._status_number("VmRSS") * 1024

    def peak_resident_bytes(self) -> int:
        """Return the most memory that the handler's process has held."""
        return self._status_number("VmHWM") * 1024

    def open_files(self) -> int:
        """Return the number of file descriptors that the handler's process has open."""
        return len(list(Path(f"/proc/{self.handler_pid()}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Return the processor time, user and system, that the handler has used so far."""
        stat = Path(f"/proc/{self.handler_pid()}/stat").read_text()
        fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the emulator, the handler and their processes. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        family = [*_descendants(process.pid), process.pid]  # the RIE's children lead own groups
        for pid in reversed(family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        if self._reader:
            self._reader.join(timeout=5)
        if process.stdout:
            process.stdout.close()

    def _start(self, binary: Path) -> None:
        self.port = _free_port(self._chosen_port)
        with _only_core(self._core):
            self.started_at = time.perf_counter()
            self._process = subprocess.Popen(
                [
                    str(binary),
                    *("--log-level", "warn"),
                    *("--runtime-interface-emulator-address", f"127.0.0.1:{self.port}"),
                    *("--runtime-api-address", f"127.0.0.1:{_free_port()}"),
                    *self._command,
                ],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ValueError):  # closed while we read
            for line in process.stdout or ():
                self.log.append(line.rstrip("\n"))

    def _listening(self) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return True
            time.sleep(0.002)
        return False

    def _status_number(self, field: str) -> int:
        for line in Path(f"/proc/{self.handler_pid()}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise EmulatorError(f"This kernel does not report {field}")


def emulator_binary(cache: Path = CACHE) -> Path:
    """Return the RIE's path. The first call fetches the file.

    Raises:
        EmulatorError: there is no RIE for this machine, it cannot be fetched, or its SHA-256 is
            wrong.
    """
    architecture = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
    if sys.platform != "linux":
        raise EmulatorError(f"The emulator is a Linux program. This is {sys.platform}")
    binary = cache / f"aws-lambda-rie-{architecture}"
    if not binary.exists():
        _unpack(binary)
    found = hashlib.sha256(binary.read_bytes()).hexdigest()
    if found != SHA256[architecture]:
        raise EmulatorError(
            f"{binary} is not the expected emulator: SHA-256 {found}, expected "
            f"{SHA256[architecture]}. Delete it, and the next start fetches it again."
        )
    return binary


def sam_requirement(lock: str) -> str:
    """Return the entry of aws-sam-cli in a lock file, with its hashes.

    Args:
        lock: text of a requirements file that `make lock` wrote.

    Raises:
        EmulatorError: the lock has no such entry.
    """
    entry = re.search(r"^aws-sam-cli==\S+ \\\n(?:    --hash=\S+(?: \\)?\n)+", lock, re.MULTILINE)
    if not entry:
        raise EmulatorError("requirements/sam.txt holds no aws-sam-cli. Run `make lock`.")
    return entry[0]


def _unpack(binary: Path) -> None:
    member = f"samcli/local/rapid/{binary.name}"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
        lock = Path(folder) / "emulator.txt"
        lock.write_text(sam_requirement(SAM_LOCK.read_text()))
        reply = subprocess.run(
            [*pip, *options, "--dest", folder, "--requirement", str(lock)],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if reply.returncode or not wheels:
            raise EmulatorError(
                "The Lambda emulator is not here yet and could not be fetched from PyPI (once, "
                f"inside the aws-sam-cli wheel). Is there a network? Or put the file at {binary}. "
                f"pip said: {(reply.stderr.strip().splitlines() or ['nothing'])[-1]}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            fresh = Path(wheel.extract(member, folder))
        fresh.chmod(0o755)
        fresh.replace(binary)  # at once: another process may be looking for it


def _environment(
    cwd: Path, extra: Mapping[str, str], timeout_s: int, memory_mb: int
) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **inherited,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "LAMBDA_TASK_ROOT": str(cwd),
        **extra,
    }


@contextlib.contextmanager
def _only_core(core: int | None) -> Iterator[None]:
    """Confine this thread and the processes that it starts to one core, within the block."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _decoded(reply: bytes) -> Any:
    text = reply.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _free_port(chosen: int = 0) -> int:
    """Return the chosen port, or a free one for 0. The RIE answers a port in use with a panic."""
    with socket.socket() as probe:
        # As the RIE does, so that the port of an emulator that has just ended can be used again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", chosen))
        except (OSError, OverflowError) as error:
            raise EmulatorError(describe_port_error("127.0.0.1", chosen, error)) from error
        port: int = probe.getsockname()[1]
        return port


def _descendants(pid: int) -> Iterator[int]:
    children = _read_bytes(f"/proc/{pid}/task/{pid}/children")
    tasks = Path(f"/proc/{pid}/task")
    with contextlib.suppress(OSError):
        # A child belongs to the thread that started it, and Go starts them from any thread.
        children = b" ".join(_read_bytes(task / "children") for task in tasks.iterdir())
    for child in children.split():
        yield int(child)
        yield from _descendants(int(child))


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def main() -> None:
    """Start the handler under the emulator, print how to call it, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tools.emulator", description=main.__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one. Default: 8080")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    image = ImageServer({EXAMPLE_PATH: Resource(EXAMPLE.read_bytes())})
    with image, tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        model = prepare_model(os.environ.get("MODEL_URI", ""), Path(folder))
        env = {"TRUSTED_IMAGE_HOSTS": image.host, "MODEL_URI": model}
        with Emulator(env=env, port=arguments.port) as emulator:
            _explain(emulator.url, image.url(EXAMPLE_PATH))
            print_log(emulator)


def prepare_model(uri: str, folder: Path) -> str:
    """Load a model once. Otherwise the handler would only say to its first request what is wrong.

    Args:
        uri: ``MODEL_URI``.
        folder: takes a model from S3, because the handler gets nobody's credentials.

    Returns:
        ``MODEL_URI`` of the handler.

    Raises:
        EmulatorError: no model can be served.
    """
    # Imported here: other handlers are started without our model.
    from lambda_function.fetching.s3 import download_model
    from lambda_function.fetching.urls import S3_SCHEME
    from lambda_function.service import load_service
    from lambda_function.settings import Settings
    from tools.serve import START_ERRORS

    try:
        settings = Settings.from_environment({"MODEL_URI": uri})
        if settings.model_uri.startswith(S3_SCHEME):
            file = folder / Path(uri).name
            file.write_bytes(download_model(settings.model_uri))
            settings = dataclasses.replace(settings, model_uri=str(file))
        load_service(settings)
    except START_ERRORS as error:
        raise EmulatorError(f"Cannot start: {error}") from error
    return settings.model_uri


def _explain(url: str, image_url: str) -> None:
    event_file = CACHE / "event.json"
    event = http_event("POST", "/predict", json_body={"url": image_url, "top_k": 3})
    event_file.write_text(json.dumps(event, indent=2) + "\n")
    event_name = os.path.relpath(event_file)
    direct = json.dumps({"url": image_url})
    print("The handler runs under the Lambda Runtime Interface Emulator. Ctrl-C ends it.")
    print("In another terminal, one request at a time (two at once crash the emulator):\n")
    print(f"# direct invoke. The image is examples/{EXAMPLE.name}. Any public URL works too")
    print(f"curl -s {url} -d '{direct}'\n")
    print("# what API Gateway sends for POST /predict (payload format 2.0)")
    print(f"curl -s {url} -d @{event_name}\n", flush=True)


def print_log(emulator: Emulator) -> None:
    """Print the log until the emulator ends.

    Raises:
        EmulatorError: it has ended.
    """
    is_running = True
    while is_running:
        is_running = emulator.is_running  # asked first, so that the last lines are printed too
        while emulator.log:
            print(emulator.log.popleft(), flush=True)
        time.sleep(0.1)
    raise EmulatorError("The emulator has ended. Two requests at once crash it. Start it again.")


if __name__ == "__main__":
    try:
        main()
    except EmulatorError as error:
        sys.exit(str(error))
