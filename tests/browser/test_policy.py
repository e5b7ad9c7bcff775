"""The Content-Security-Policy holds: the page runs under it, and nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import PANTS, Demo

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Route

    from tools.image_server import ImageServer

pytestmark = pytest.mark.browser


def test_no_request_leaves_the_origin(demo: Demo) -> None:
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    demo.page.click("#example")
    demo.page.locator("#curl", has_text="example.webp").wait_for()
    demo.answer()
    asked = [url.removeprefix(demo.origin).partition("?")[0] for url in demo.requests]
    assert asked == ["/", "/model", "/predict", "/predict"]


def test_only_the_image_that_was_named_is_loaded_from_elsewhere(
    demo: Demo, images: ImageServer
) -> None:
    url = images.url("/pants.jpg")
    with demo.page.expect_request(url) as request:
        demo.page.fill("#url", url)
        demo.page.press("#url", "Enter")
    demo.answer()
    assert [u for u in demo.requests if not u.startswith(demo.origin)] == [url]
    assert "referer" not in request.value.all_headers()


@pytest.mark.parametrize(
    ("block", "directive"), [("'use strict';", "script-src-elem"), (":root {", "style-src-elem")]
)
def test_a_changed_block_is_refused(
    new_demo: Callable[..., Demo], block: str, directive: str
) -> None:
    demo = new_demo()

    def change(route: Route) -> None:
        response = route.fetch()
        assert response.text().count(block) >= 1
        route.fulfill(response=response, body=response.text().replace(block, block + " ", 1))

    demo.page.route(demo.origin + "/", change)
    demo.page.goto(demo.origin + "/")
    demo.wait("window.policyViolations.length > 0")
    assert demo.violations() == [f"{directive} inline"]


def test_an_injected_handler_does_not_run(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo()
    demo.open()
    demo.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"hit = 1\">')"
    )
    demo.wait("window.policyViolations.length > 0")
    assert demo.violations() == ["script-src-attr inline"]
    assert demo.page.evaluate("typeof hit") == "undefined"


def test_nothing_can_be_sent_elsewhere(new_demo: Callable[..., Demo], images: ImageServer) -> None:
    demo = new_demo()
    demo.open()
    sent = demo.page.evaluate(
        "(url) => fetch(url, { mode: 'no-cors' }).then(() => 'sent', () => 'refused')",
        images.url("/pants.jpg"),
    )
    assert sent == "refused"
    assert demo.violations() == [f"connect-src {images.url('/pants.jpg')}"]
