"""Every failure that a visitor can meet is said in words, with what helps to report it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import PANTS, Demo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Route

    from tools.image_server import ImageServer

pytestmark = pytest.mark.browser
REQUEST_ID = re.compile(r"request [0-9a-f-]{36}")


def gateway_says(status: int, message: str, **headers: str) -> Callable[[Route], None]:
    """Answer as API Gateway does when it does not ask our function."""
    return lambda route: route.fulfill(
        status=status,
        content_type="application/json",
        headers=headers,
        body=json.dumps({"message": message}),
    )


def test_bytes_that_are_no_image(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(b"%PDF-1.7 not an image at all")
    demo.page.set_input_files("#file", tmp_path / "fake.png")
    problem = demo.problem()
    assert "Not a supported image type" in problem
    assert "HTTP 415 · unsupported_image" in problem
    assert REQUEST_ID.search(problem)
    assert demo.page.locator("#blank").inner_text() == "Your browser cannot show this image."
    assert demo.page.locator("#times").is_hidden()
    assert demo.page.get_by_role("alert").inner_text() == problem


def test_an_image_that_is_not_there(demo: Demo, images: ImageServer) -> None:
    demo.page.fill("#url", images.url("/missing.jpg"))
    demo.page.press("#url", "Enter")
    problem = demo.problem()
    assert "Image could not be fetched" in problem
    assert "404" in problem
    assert "HTTP 502 · fetch_failed" in problem
    assert "No preview" in demo.page.locator("#blank").inner_text()


def test_an_address_that_is_not_allowed(demo: Demo) -> None:
    demo.page.fill("#url", "http://127.0.0.1:9/metadata.jpg")
    demo.page.press("#url", "Enter")
    problem = demo.problem()
    assert "HTTP 400" in problem
    assert REQUEST_ID.search(problem)


def test_a_file_that_is_no_image_is_not_sent(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("jeans")
    demo.page.set_input_files("#file", tmp_path / "notes.txt")
    assert "“notes.txt” is not an image that your browser knows" in demo.problem()
    assert "/predict" not in "".join(demo.requests)


# What API Gateway says itself, the page's title for it, and whether another try may help.
GATEWAY = [
    (401, "Unauthorized", "Authorisation needed", False),
    (403, "Forbidden", "Authorisation needed", False),
    (404, "Not Found", "No such address", False),
    (413, "Request Entity Too Large", "Image too large", False),
    (429, "Too Many Requests", "Too many requests", True),
    (500, "Internal Server Error", "The service failed", True),
    (503, "Service Unavailable", "Service unavailable", True),
    (504, "Gateway Timeout", "No answer in time", True),
    (418, "Teapot", "Unexpected answer", False),
]


def test_the_gateways_own_errors(demo: Demo) -> None:
    for status, message, title, retry in GATEWAY:
        says = gateway_says(status, message, **{"apigw-requestid": "Ab3="})
        demo.page.route("**/predict*", says, times=1)
        demo.page.set_input_files("#file", PANTS)
        demo.page.locator("#problem", has_text=f"HTTP {status}").wait_for()
        problem = demo.problem()
        assert problem.startswith(title)
        assert f"It said: “{message}”." in problem
        assert f"HTTP {status} · request Ab3=" in problem
        assert demo.page.get_by_role("button", name="Try again").is_visible() == retry


@pytest.mark.parametrize("status", [401, 403])
def test_authorisation_is_said_before_anything_is_tried(
    new_demo: Callable[..., Demo], status: int
) -> None:
    demo = new_demo()
    demo.page.route("**/model", gateway_says(status, "Unauthorized"))
    demo.page.goto(demo.origin)
    demo.page.locator("#locked").wait_for()
    said = demo.page.locator("#locked").inner_text()
    assert f"asks for authorisation (HTTP {status})" in said
    assert "cannot classify from here" in said


def test_trying_again_works(demo: Demo) -> None:
    demo.page.route("**/predict*", gateway_says(429, "Too Many Requests"), times=1)
    demo.page.set_input_files("#file", PANTS)
    demo.problem()
    demo.page.get_by_role("button", name="Try again").click()
    assert demo.answer()
    assert not demo.page.locator("#problem *").count()


def test_an_answer_that_is_not_ours(demo: Demo) -> None:
    demo.page.route("**/predict*", lambda route: route.fulfill(status=200, body="<html>login"))
    demo.page.set_input_files("#file", PANTS)
    assert "What answered is not this service." in demo.problem()


def test_a_lost_connection(demo: Demo) -> None:
    demo.page.route("**/predict*", lambda route: route.abort("connectionreset"))
    demo.page.set_input_files("#file", PANTS)
    assert "No connection" in demo.problem()
    assert demo.page.get_by_role("button", name="Try again").is_visible()


def test_being_offline(demo: Demo) -> None:
    demo.page.context.set_offline(True)
    demo.page.set_input_files("#file", PANTS)
    assert "You are offline" in demo.problem()


def test_a_service_that_never_answers(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo()
    demo.page.clock.install()
    demo.open()
    demo.page.route("**/predict*", lambda _: None)
    demo.page.set_input_files("#file", PANTS)
    demo.page.locator("#terminal").wait_for()
    demo.page.clock.fast_forward(44_000)
    assert demo.page.locator("#verdict").inner_text() == "Looking…"
    demo.page.clock.fast_forward(2_000)
    assert "did not answer within 45 seconds" in demo.problem()


def test_a_model_that_cannot_be_described_does_not_stop_the_page(
    new_demo: Callable[..., Demo],
) -> None:
    demo = new_demo()
    demo.page.route("**/model", lambda route: route.abort())
    demo.page.goto(demo.origin)
    demo.page.locator("#model", has_text="could not be loaded").wait_for()
    demo.page.set_input_files("#file", PANTS)
    assert demo.answer()


def test_an_uncertain_answer_is_said_to_be_one(demo: Demo) -> None:
    def unsure(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"uncertain": True})

    demo.page.route("**/predict*", unsure)
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    assert demo.page.locator("#unsure").is_visible()


def test_text_from_outside_stays_text(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.txt"
    path.write_text("x")
    demo.page.set_input_files("#file", path)
    assert "<img src=x onerror=alert(1)>.txt" in demo.problem()
    assert demo.page.locator("#problem img").count() == 0
