"""Thousands of mixed requests, one after another, through the real emulator.

No crash, no status 500, memory and file descriptors flat. ``SOAK_REQUESTS`` sets how many
(a short run by default, 5,000 for a release), ``SOAK_WRITE=1`` keeps the figures in
``benchmarks/results/soak.json``:

    SOAK_REQUESTS=5000 SOAK_WRITE=1 python -m pytest tests/serving/test_soak.py
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from benchmarks.harness import origin, summarise, write_result
from lambda_function import REPOSITORY
from tests.support.emulator import require_emulator
from tests.support.images import encode
from tools.emulator import Emulator
from tools.gateway import http_event
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "90"))  # 30 are one of each kind
WARM_UP = max(50, REQUESTS // 10)  # allocators reach their working size, and every kind was seen
SAMPLE_EVERY = 10
MAX_GROWTH = 0.05  # of resident memory after the warm-up
EXAMPLES = sorted((REPOSITORY / "examples").iterdir())

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120 + 2 * REQUESTS)]


@dataclasses.dataclass
class Soak:
    """What was seen over the run.

    Attributes:
        statuses: how often each status came back.
        wrong: the first answers whose status was not the expected one.
        resident_bytes: sampled every ``SAMPLE_EVERY`` requests after the warm-up.
        open_files: likewise.
        elapsed_s: of each request, all kinds.
        pids: of the handler: more than one means that it crashed and was restarted.
    """

    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)
    resident_bytes: list[int] = dataclasses.field(default_factory=list)
    open_files: list[int] = dataclasses.field(default_factory=list)
    elapsed_s: list[float] = dataclasses.field(default_factory=list)
    pids: set[int] = dataclasses.field(default_factory=set)


@pytest.mark.release
@pytest.mark.slow
def test_mixed_requests_leave_memory_and_files_as_they_were():
    require_emulator()
    record = origin()
    soak = run_soak(REQUESTS)
    report = describe(soak)
    if os.environ.get("SOAK_WRITE") == "1":
        write_result("soak", {**record, **report})

    assert soak.wrong == []
    assert soak.statuses[500] == 0
    assert sum(soak.statuses.values()) == REQUESTS
    assert len(soak.pids) == 1, "the handler crashed and was started again"
    assert report["resident_growth"] <= MAX_GROWTH, report
    assert report["open_files_growth"] <= 0, report


def run_soak(requests: int) -> Soak:
    """Send the requests and sample the handler's process."""
    soak = Soak()
    with ImageServer(resources()) as server:
        environment = {"TRUSTED_IMAGE_HOSTS": server.host}
        with Emulator(env=environment, memory_mb=1769) as emulator:
            mixture = itertools.islice(itertools.cycle(events(server)), requests)
            for number, (event, expected) in enumerate(mixture):
                reply = emulator.invoke(event)
                status = status_of(reply.body)
                soak.statuses[status] += 1
                soak.elapsed_s.append(reply.elapsed_s)
                if status != expected and len(soak.wrong) < 10:
                    soak.wrong.append(f"{number}: expected {expected}, got {str(reply.body)[:300]}")
                if number >= WARM_UP and number % SAMPLE_EVERY == 0:
                    soak.pids.add(emulator.handler_pid())
                    soak.resident_bytes.append(emulator.resident_bytes())
                    soak.open_files.append(emulator.open_files())
            soak.pids.add(emulator.handler_pid())
    return soak


def describe(soak: Soak) -> dict[str, Any]:
    """Compare the first fifth of the samples with the last fifth: growth, not noise."""
    fifth = max(1, len(soak.resident_bytes) // 5)
    resident = [
        summarise(part).median
        for part in (soak.resident_bytes[:fifth], soak.resident_bytes[-fifth:])
    ]
    files = [max(part) for part in (soak.open_files[:fifth], soak.open_files[-fifth:])]
    return {
        "requests": sum(soak.statuses.values()),
        "statuses": dict(sorted(soak.statuses.items())),
        "resident_after_warm_up_mb": resident[0] / 1e6,
        "resident_at_end_mb": resident[1] / 1e6,
        "resident_growth": resident[1] / resident[0] - 1,
        "open_files_after_warm_up": files[0],
        "open_files_at_end": files[1],
        "open_files_growth": files[1] - files[0],
        "elapsed_s": dataclasses.asdict(summarise(soak.elapsed_s)),
    }


def status_of(body: Any) -> int:
    """Return the HTTP status of a response, or 500 for an error of the runtime."""
    if not isinstance(body, dict) or "errorType" in body:
        return 500
    return int(body.get("statusCode", body.get("status", 200)))


def resources() -> dict[str, Resource]:
    images = {f"/{file.name}": Resource(file.read_bytes()) for file in EXAMPLES}
    whole = EXAMPLES[0].read_bytes()
    images["/truncated.jpg"] = Resource(whole[: len(whole) // 2])
    images["/page.html"] = Resource(b"<!doctype html>", "text/html")
    images["/large.jpg"] = Resource(encode(Image.new("RGB", (3000, 4000)), "JPEG"))
    images["/alpha.png"] = Resource(encode(Image.new("RGBA", (600, 400))), "image/png")
    images["/bomb.png"] = Resource(encode(Image.new("1", (12_000, 12_000))), "image/png")
    images["/gone.jpg"] = Resource(b"", "text/plain", 410)
    return images


def events(server: ImageServer) -> list[tuple[Any, int]]:
    """Return one cycle of the mixture: (event, expected status). Good and bad take turns."""
    names = itertools.cycle(file.name for file in EXAMPLES)
    image = base64.b64encode(EXAMPLES[-1].read_bytes()).decode()

    def post(body: Any) -> dict[str, Any]:
        return http_event("POST", "/predict", json_body=body)

    def good() -> Iterator[dict[str, Any]]:
        while True:
            url = server.url(f"/{next(names)}")
            yield {"url": url}
            yield post({"url": url, "top_k": 3})
            yield http_event("GET", "/predict", query={"url": url})
            yield post({"image": image})

    bad: list[tuple[Any, int]] = [
        (post({"url": server.url("/truncated.jpg")}), 422),
        ({}, 400),
        ({"url": server.url("/page.html")}, 415),
        (post({"url": server.url("/gone.jpg")}), 502),
        (post({"url": server.url("/large.jpg")}), 200),
        (post({"url": server.url("/bomb.png")}), 413),
        (http_event("GET", "/no-such-page"), 404),
        (http_event("DELETE", "/predict"), 405),
        ({"url": server.url("/alpha.png")}, 200),
        (post({"url": "http://169.254.169.254/latest"}), 400),
        (http_event("POST", "/predict", body=b"\xff\xd8\xff garbage"), 422),
        (post({"urls": [server.url("/pants.jpg"), server.url("/gone.jpg")]}), 200),
        (post({"url": server.url("/pants.jpg"), "top_k": 11}), 400),
        (http_event("GET", "/health"), 200),
        ({"image": "no base64!"}, 400),
    ]
    sound = good()
    return [event for case in bad for event in ((next(sound), 200), case)]
