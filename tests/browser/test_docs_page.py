"""The documentation page: its form works, and its commands do what the headings say."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import PANTS, SHIRT, Demo, run_shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tools.image_server import ImageServer

pytestmark = pytest.mark.browser


@pytest.fixture
def docs(new_demo: Callable[..., Demo], map_origin: str) -> Iterator[Demo]:
    """Open the documentation of a model with a map."""
    found = new_demo()
    found.origin = map_origin
    found.page.goto(map_origin + "/docs")
    found.page.locator("#explain option[value=dark]").wait_for(state="attached")
    yield found
    assert found.violations() == []


def send(docs: Demo) -> Any:
    """Send the form and return the response that the page shows."""
    docs.page.get_by_role("button", name="Send").click()
    docs.page.locator("#status", has_text="HTTP").wait_for()
    return json.loads(docs.page.locator("#response").inner_text())


def without_times(response: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in response.items() if k not in ("timings_ms", "request_id")}


def test_a_file_gets_the_response_of_the_shown_command(docs: Demo, tmp_path: Path) -> None:
    name = 'it\'s; 1, "2".jpg'
    shutil.copy(PANTS, tmp_path / name)
    docs.page.set_input_files("#file", tmp_path / name)
    docs.page.get_by_label("top_k").fill("2")
    docs.page.get_by_label("explain").select_option("blue")
    response = send(docs)
    assert docs.page.get_by_role("status").inner_text().startswith("HTTP 200, ")
    assert len(response["predictions"]) == 2
    assert response["explanation"]["label"] == "blue"
    shown = run_shell(docs.page.locator("#request").inner_text(), tmp_path)
    assert without_times(shown) == without_times(response)


@pytest.mark.parametrize(("choice", "asked"), [("no class", None), ("the best class", True)])
def test_an_address_gets_the_response_of_the_shown_command(
    docs: Demo, images: ImageServer, tmp_path: Path, choice: str, asked: bool | None
) -> None:
    docs.page.get_by_label("Address of an image").fill(images.url("/pants.jpg?a='b'"))
    docs.page.get_by_label("explain").select_option(choice)
    with docs.page.expect_request("**/predict") as request:
        response = send(docs)
    assert request.value.post_data_json.get("explain") == asked
    assert ("explanation" in response) == bool(asked)
    shown = run_shell(docs.page.locator("#request").inner_text(), tmp_path)
    assert without_times(shown) == without_times(response)


def test_an_error_is_shown_as_it_came(docs: Demo) -> None:
    docs.page.get_by_label("Address of an image").fill("http://127.0.0.1:9/a.jpg")
    assert send(docs)["code"] in ("bad_request", "address_not_allowed")
    assert docs.page.get_by_role("status").inner_text().startswith("HTTP 400, ")


def test_a_lost_connection_is_said(docs: Demo) -> None:
    docs.page.route("**/predict", lambda route: route.abort())
    docs.page.set_input_files("#file", PANTS)
    docs.page.get_by_role("button", name="Send").click()
    docs.page.locator("#response", has_text="did not reach the service").wait_for()


def test_a_form_without_an_image_is_not_sent(docs: Demo) -> None:
    docs.page.get_by_role("button", name="Send").click()
    assert docs.page.locator("#url:invalid").count() == 1
    assert docs.page.locator("#reply").is_hidden()
    docs.page.set_input_files("#file", PANTS)
    assert send(docs)["predictions"]


def test_the_image_that_was_given_last_is_sent(docs: Demo, images: ImageServer) -> None:
    docs.page.get_by_label("Address of an image").fill(images.url("/pants.jpg"))
    docs.page.set_input_files("#file", PANTS)
    assert docs.page.locator("#url").input_value() == ""
    docs.page.get_by_label("Address of an image").fill(images.url("/pants.jpg"))
    assert docs.page.evaluate("document.getElementById('file').files.length") == 0


def test_every_command_of_the_page_works(docs: Demo, images: ImageServer, tmp_path: Path) -> None:
    shutil.copy(PANTS, tmp_path / "image.jpg")
    shutil.copy(SHIRT, tmp_path / "other.png")
    first, *commands = [
        text
        for text in docs.page.locator("main > pre, main > .map > pre").all_inner_texts()
        if not text.startswith("{")
    ]
    assert first == f"API={docs.origin}"
    assert len(commands) == 7
    for command in commands:
        assert max(map(len, command.splitlines())) <= 54
        local = command.replace("https://example.com/image.jpg", images.url("/pants.jpg"))
        response = run_shell(f"{first}\n{local}", tmp_path)
        results = response.get("results", [response])
        assert all(result["predictions"] for result in results), command
        assert ("explanation" in response) == ("explain=1" in command)


@pytest.mark.parametrize("path", ["/docs", "/prod/docs", "/prod/docs#errors"])
def test_it_works_behind_a_named_stage(
    new_demo: Callable[..., Demo], map_origin: str, path: str
) -> None:
    docs = new_demo()
    docs.page.route(
        map_origin + "/prod/**",
        lambda route: route.continue_(url=route.request.url.replace("/prod", "", 1)),
    )
    docs.page.goto(map_origin + path)
    root = map_origin + path.partition("/docs")[0]
    docs.page.locator("#explain option[value=dark]").wait_for(state="attached")
    docs.page.set_input_files("#file", PANTS)
    assert send(docs)["predictions"]
    assert docs.page.locator("#api").inner_text() == root
    docs.page.get_by_role("link", name="Demo page").click()
    docs.page.locator("#bars li").first.wait_for()
    assert docs.page.url == root + "/"
    docs.page.get_by_role("link", name="API documentation").click()
    docs.page.wait_for_url(root + "/docs")
