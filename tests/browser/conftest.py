"""The real page, from the real handler behind the local server, in a real headless Chromium.

Playwright is imported inside the fixtures: `make test` collects this folder without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function import REPOSITORY, SHIPPED_MODEL
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# The tests have their own images, because ``examples/`` belongs to the shipped model.
IMAGES = Path(__file__).parent / "images"
PANTS = IMAGES / "pants.jpg"
SHIRT = IMAGES / "t-shirt.jpg"
TINY_MODEL = REPOSITORY / "tests" / "data" / "tiny.tflite"
TINY_MAP_MODEL = REPOSITORY / "tests" / "data" / "tiny_map.tflite"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing but our own requests, and software rendering, whatever the machine.
CHROMIUM_FLAGS = [
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE_MS = 40_000  # for one answer on a busy machine
START_TIMEOUT_S = 60
WATCH_POLICY = """
window.policyViolations = [];
document.addEventListener('securitypolicyviolation', (event) => {
  window.policyViolations.push(event.violatedDirective + ' ' + event.blockedURI);
});
"""


@dataclasses.dataclass
class Demo:
    """The page, opened, and what happened on it.

    Attributes:
        page: Playwright's.
        origin: of the local server.
        requests: every URL that the page requested, in order, without data: and blob:.
        failures: uncaught exceptions of the page's script.
    """

    page: Page
    origin: str
    requests: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)

    def open(self, path: str = "/") -> None:
        """Go to the page and wait until it has heard of the model."""
        self.page.goto(self.origin + path)
        self.page.locator("#bars li").first.wait_for()

    def answer(self) -> list[tuple[str, str]]:
        """Wait for an answer and return its rows: (label, percentage as shown)."""
        self.page.locator("#times").wait_for()
        rows = self.page.locator("#bars li.known").all()
        words = [row.inner_text().split() for row in rows]
        return [(row[0], row[-1]) for row in words]

    def problem(self) -> str:
        """Wait for an error and return its text."""
        self.page.locator("#problem .wrong").wait_for()
        return self.page.locator("#problem").inner_text()

    def wait(self, expression: str) -> None:
        """Wait until a JavaScript expression is true of the page.

        Playwright's own wait_for_function calls eval, which the page's policy refuses.
        """
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(f"() => Boolean({expression})"):
            assert time.monotonic() < end, f"not true in time: {expression}"
            self.page.wait_for_timeout(20)

    def violations(self) -> list[str]:
        """Return what the Content-Security-Policy refused so far."""
        found: list[str] = self.page.evaluate("window.policyViolations")
        return found


def box(demo: Demo, selector: str) -> dict[str, float]:
    """Return where an element is, in pixels of the page."""
    found = demo.page.locator(selector).bounding_box()
    assert found
    return dict(found)


def run_shell(command: str, folder: Path) -> Any:
    """Run a command that a page shows as text in a shell, as a reader would."""
    if not shutil.which("curl"):
        pytest.skip("no curl: the commands that the page shows cannot be tried")
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Return the browser's program: CHROMIUM, or the first one on the PATH."""
    names = (os.environ.get("CHROMIUM", ""), *CHROMIUM_NAMES)
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if not found:
        pytest.skip("no Chromium: install Debian's package `chromium`, or name one with CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(chromium_path: str) -> Iterator[Browser]:
    """Start one browser for the session. Its contexts share nothing."""
    reason = "Playwright is not installed: use `make test-browser`"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium_path, args=CHROMIUM_FLAGS + root
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def images() -> Iterator[ImageServer]:
    """Serve the images as a stranger's web server would."""
    found = {f"/{path.name}": Resource(path.read_bytes()) for path in IMAGES.glob("*.jpg")}
    found["/page.jpg"] = Resource(b"<html>no image</html>", "text/html")
    with ImageServer(found) as server:
        yield server


@pytest.fixture(scope="session")
def origin(images: ImageServer) -> Iterator[str]:
    """Start the server of `make run` with the shipped model if it exists, and return its URL."""
    model = SHIPPED_MODEL if SHIPPED_MODEL.exists() else TINY_MODEL
    with serve(model, TRUSTED_IMAGE_HOSTS=images.host, INTERPRETER_THREADS="1") as address:
        yield address


@pytest.fixture(scope="session")
def map_origin(images: ImageServer) -> Iterator[str]:
    """Serve the tests' model with an activation map, and return the URL."""
    with serve(TINY_MAP_MODEL, TRUSTED_IMAGE_HOSTS=images.host) as address:
        yield address


@contextlib.contextmanager
def serve(model: Path, *, port: int = 0, **settings: str) -> Iterator[str]:
    """Run the local server in a process of its own. Port 0 is any free one."""
    command = [sys.executable, "-m", "tools.serve", "--port", str(port)]
    environment = {"PATH": os.environ["PATH"], "MODEL_URI": str(model), **settings}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    )
    killer = threading.Timer(START_TIMEOUT_S, process.kill)
    killer.start()
    assert process.stdout
    try:
        said = process.stdout.readline()
        match = re.search(r"http://\S+", said)
        assert match, f"the local server did not start. It printed {said!r}"
        killer.cancel()
        drain = threading.Thread(target=process.stdout.read, daemon=True)  # its log lines
        drain.start()
        yield match[0]
    finally:
        killer.cancel()
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def new_demo(browser: Browser, origin: str) -> Iterator[Callable[..., Demo]]:
    """Return a maker of pages that are not opened yet. It takes a browser context's arguments.

    After the test no page may have had an uncaught exception or a policy violation, unless
    the test emptied ``failures`` or set ``page`` aside itself.
    """
    made: list[Demo] = []
    with contextlib.ExitStack() as contexts:

        def make(**options: Any) -> Demo:
            options = {"viewport": {"width": 1200, "height": 860}} | options
            context = contexts.enter_context(contextlib.closing(browser.new_context(**options)))
            context.set_default_timeout(PATIENCE_MS)
            context.add_init_script(WATCH_POLICY)
            demo = Demo(context.new_page(), origin)
            # Playwright catches file dialogs a moment after it is first asked to: ask now.
            demo.page.on("filechooser", lambda _: None)
            demo.page.on("pageerror", lambda error: demo.failures.append(str(error)))
            demo.page.on(
                "request",
                lambda request: (
                    demo.requests.append(request.url) if request.url.startswith("http") else None
                ),
            )
            made.append(demo)
            return demo

        yield make
        for demo in made:
            assert demo.failures == []


@pytest.fixture
def demo(new_demo: Callable[..., Demo]) -> Iterator[Demo]:
    """Open the page on a desktop screen. Afterwards the policy must have refused nothing."""
    found = new_demo()
    found.open()
    yield found
    assert found.violations() == []
