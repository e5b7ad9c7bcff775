"""Every way to give the page an image ends at the same bars."""

from __future__ import annotations

import base64
import io
import json
import shutil
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lambda_function.metadata import read_metadata
from tests.browser.conftest import PANTS, SHIPPED_MODEL, SHIRT, Demo, run_shell
from tests.conftest import RELEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import JSHandle, Page

    from tools.image_server import ImageServer

pytestmark = pytest.mark.browser
CARRY = """([base64, name, type, text]) => {
  const data = new DataTransfer();
  if (base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type }));
  }
  for (const kind of Object.keys(text)) data.setData(kind, text[kind]);
  return data;
}"""
PASTE = """(data) => document.activeElement.dispatchEvent(
  new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }))"""


def api_rows(origin: str, data: bytes, content_type: str) -> list[tuple[str, str]]:
    """Ask the API without the page. Return (label, percentage) as a reader expects them."""
    request = urllib.request.Request(
        origin + "/predict", data, {"Content-Type": content_type}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return rows_of(json.load(response))


def rows_of(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item["label"], shown(item["score"])) for item in answer["predictions"]]


def shown(score: float) -> str:
    if 0 < score < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= score < 1 else f"{score:.1%}"


def close(found: list[tuple[str, str]], expected: list[tuple[str, str]]) -> bool:
    """Return whether rows are the same. A tenth of a percent may round either way."""
    numbers = [
        [float(share.strip("<>%")) for _, share in sorted(rows)] for rows in (found, expected)
    ]
    near = all(abs(a - b) < 0.11 for a, b in zip(*numbers, strict=True))
    return near and found[0][0] == expected[0][0] and dict(found).keys() == dict(expected).keys()


def carry(page: Page, path: Path | None = None, kind: str = "image/jpeg", **text: str) -> JSHandle:
    """Make what a drop or a paste carries: a file, or texts by type."""
    encoded = base64.b64encode(path.read_bytes()).decode() if path else ""
    named = {name.replace("_", "/").replace("uri/list", "uri-list"): v for name, v in text.items()}
    return page.evaluate_handle(CARRY, [encoded, path.name if path else "", kind, named])


def test_a_chosen_file_gets_the_answer_of_the_api(demo: Demo) -> None:
    demo.page.set_input_files("#file", PANTS)
    expected = api_rows(demo.origin, PANTS.read_bytes(), "image/jpeg")
    assert close(demo.answer(), expected)
    assert demo.page.locator("#verdict").inner_text().split() == list(demo.answer()[0])
    assert demo.page.locator("#preview").get_attribute("alt") == "Your image: pants.jpg"


def test_bars_are_as_long_as_their_shares(demo: Demo) -> None:
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    demo.page.wait_for_timeout(900)  # they grow for 0.7 s
    ratios = demo.page.eval_on_selector_all(
        "#bars .track", "all => all.map((t) => t.firstChild.offsetWidth / t.offsetWidth * 100)"
    )
    shares = [float(share.strip("<>%")) for _, share in demo.answer()]
    assert ratios == pytest.approx(shares, abs=1)
    assert sum(ratios) == pytest.approx(100, abs=5)


def test_a_dropped_file_is_classified(demo: Demo) -> None:
    data = carry(demo.page, SHIRT)
    demo.page.dispatch_event("#stage", "dragenter", {"dataTransfer": data})
    assert demo.page.locator("#invite").inner_text() == "Let go"
    demo.page.dispatch_event("#stage", "drop", {"dataTransfer": data})
    assert close(demo.answer(), api_rows(demo.origin, SHIRT.read_bytes(), "image/jpeg"))
    assert not demo.page.locator("#stage.over").count()


def test_a_dropped_address_is_classified(demo: Demo, images: ImageServer) -> None:
    url = images.url("/t-shirt.jpg")
    data = carry(demo.page, text_uri_list=url)
    demo.page.dispatch_event("body", "drop", {"dataTransfer": data})
    assert close(demo.answer(), api_rows(demo.origin, SHIRT.read_bytes(), "image/jpeg"))
    assert demo.page.locator("#url").input_value() == url


def test_a_pasted_image_is_classified_and_can_be_saved(demo: Demo) -> None:
    demo.page.evaluate(PASTE, carry(demo.page, PANTS))
    assert close(demo.answer(), api_rows(demo.origin, PANTS.read_bytes(), "image/jpeg"))
    with demo.page.expect_download() as download:
        demo.page.click("#save")
    assert download.value.path().read_bytes() == PANTS.read_bytes()


def test_an_address_pasted_anywhere_is_classified(demo: Demo, images: ImageServer) -> None:
    demo.page.evaluate(PASTE, carry(demo.page, text_plain=images.url("/pants.jpg") + "\n"))
    assert close(demo.answer(), api_rows(demo.origin, PANTS.read_bytes(), "image/jpeg"))
    assert not demo.page.locator("#save").is_visible()  # the command needs no file


def test_an_address_pasted_into_the_field_waits_for_enter(
    new_demo: Callable[..., Demo], images: ImageServer
) -> None:
    demo = new_demo(permissions=["clipboard-read", "clipboard-write"])
    demo.open()
    demo.page.evaluate("(text) => navigator.clipboard.writeText(text)", images.url("/pants.jpg"))
    demo.page.focus("#url")
    demo.page.keyboard.press("Control+V")
    assert demo.page.locator("#url").input_value() == images.url("/pants.jpg")
    assert "/predict" not in "".join(demo.requests)
    demo.page.keyboard.press("Enter")
    assert close(demo.answer(), api_rows(demo.origin, PANTS.read_bytes(), "image/jpeg"))
    assert "Fetch" in demo.page.locator("#clock").inner_text()


def test_pasted_prose_is_refused_in_words(demo: Demo) -> None:
    demo.page.evaluate(PASTE, carry(demo.page, text_plain="a pair of jeans"))
    assert "neither an image nor an http(s) address" in demo.problem()
    assert "/predict" not in "".join(demo.requests)


def test_our_own_example_is_one_click_away(demo: Demo) -> None:
    demo.page.click("#example")
    answer = demo.answer()
    if read_metadata(SHIPPED_MODEL).name == RELEASE:
        assert answer[0][0] == "pants"
    with demo.page.expect_download() as download:
        demo.page.click("#save")
    saved = download.value.path().read_bytes()
    assert Image.open(io.BytesIO(saved)).format == "WEBP"
    assert close(answer, api_rows(demo.origin, saved, "image/webp"))


def test_the_keyboard_alone_reaches_everything(demo: Demo, images: ImageServer) -> None:
    page = demo.page
    page.keyboard.press("Tab")
    assert focused(page) == "file"
    assert page.locator("#file").bounding_box()["width"] == 1  # its label is what is seen
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(PANTS)
    from_file = demo.answer()
    page.keyboard.press("Tab")
    assert focused(page) == "url"
    page.keyboard.type(images.url("/t-shirt.jpg"))
    page.keyboard.press("Enter")
    page.locator("#clock", has_text="fetch").wait_for()
    assert demo.answer() != from_file
    stops = []
    switches = page.get_by_role("switch").count()  # none for a model without a map
    map_stops = [*(["switch"] * switches), "opacity"] if switches else []
    for _ in range(7 + len(map_stops)):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    links = ["API documentation", "OpenAPI", "Model details"]
    assert stops == ["Classify", "example", *map_stops, "copy", "curl", *links]


def focused(page: Page) -> str:
    """Return the focused element's id, text or class, after a look at its focus ring."""
    name, outline = page.evaluate("""() => {
      const at = document.activeElement;
      const ring = getComputedStyle(at.id === 'file' ? at.parentElement : at);
      return [at.id || at.textContent || at.className, ring.outlineStyle + ' ' + ring.outlineWidth];
    }""")
    assert outline == "solid 3px", f"{name} shows no focus"
    return str(name)


def test_a_screen_reader_hears_the_answer(demo: Demo) -> None:
    demo.page.set_input_files("#file", PANTS)
    label, share = demo.answer()[0]
    status = demo.page.get_by_role("status").inner_text()
    assert status.startswith(f"{label}, {share}, in ")
    assert demo.page.get_by_role("list", name="Probability of each class").is_visible()
    assert demo.page.get_by_label("Or give its address on the web").is_visible()


def test_the_newest_image_wins(demo: Demo) -> None:
    demo.page.route("**/predict*", lambda _: None, times=1)  # the first gets no answer
    demo.page.set_input_files("#file", PANTS)
    demo.page.locator("#terminal").wait_for()
    with demo.page.expect_event("requestfailed") as given_up:
        demo.page.set_input_files("#file", SHIRT)
    assert given_up.value.failure == "net::ERR_ABORTED"
    assert close(demo.answer(), api_rows(demo.origin, SHIRT.read_bytes(), "image/jpeg"))
    assert "t-shirt.jpg" in demo.page.locator("#curl").inner_text()
    assert not demo.page.locator("#problem *").count()


@pytest.mark.parametrize("name", ["pants.jpg", "it's mine; $(no).jpg"])
def test_the_shown_command_does_the_same_for_a_file(demo: Demo, tmp_path: Path, name: str) -> None:
    shutil.copy(PANTS, tmp_path / name)
    demo.page.set_input_files("#file", tmp_path / name)
    answer = demo.answer()
    assert close(run_shown_command(demo.page, tmp_path), answer)


def test_the_shown_command_does_the_same_for_an_address(
    demo: Demo, images: ImageServer, tmp_path: Path
) -> None:
    demo.page.fill("#url", images.url("/pants.jpg?a='b'&c=$(no)"))
    demo.page.press("#url", "Enter")
    answer = demo.answer()
    assert close(run_shown_command(demo.page, tmp_path), answer)


def run_shown_command(page: Page, folder: Path) -> list[tuple[str, str]]:
    return rows_of(run_shell(page.locator("#curl").inner_text(), folder))


def test_the_command_is_copied(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo(permissions=["clipboard-read", "clipboard-write"])
    demo.open()
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    demo.page.click("#copy")
    demo.page.locator("#copy", has_text="Copied").wait_for()
    copied = demo.page.evaluate("navigator.clipboard.readText()")
    assert copied == demo.page.locator("#curl").inner_text()


def test_without_a_clipboard_the_command_is_selected(new_demo: Callable[..., Demo]) -> None:
    demo = new_demo()
    demo.page.add_init_script("delete Navigator.prototype.clipboard")
    demo.open()
    demo.page.set_input_files("#file", PANTS)
    demo.answer()
    demo.page.click("#copy")
    demo.page.locator("#copy", has_text="Selected").wait_for()
    selected = demo.page.evaluate("String(getSelection())")
    assert selected.strip() == demo.page.locator("#curl").inner_text()


@pytest.mark.parametrize("path", ["/prod", "/prod/"])
def test_it_works_behind_a_named_stage(new_demo: Callable[..., Demo], path: str) -> None:
    demo = new_demo()
    demo.page.route(
        demo.origin + "/**",
        lambda route: (
            route.continue_(url=route.request.url.replace("/prod", "", 1))
            if "/prod" in route.request.url
            else route.abort()
        ),
    )
    demo.open(path)
    demo.page.set_input_files("#file", PANTS)
    assert len(demo.answer()) == demo.page.locator("#bars li").count()
    assert f"{demo.origin}/prod/predict" in demo.page.locator("#curl").inner_text()
    assert demo.page.get_by_text("OpenAPI").get_attribute("href") == (
        f"{demo.origin}/prod/openapi.json"
    )
    assert demo.violations() == []


def test_it_names_the_model(demo: Demo) -> None:
    with urllib.request.urlopen(demo.origin + "/model", timeout=60) as response:
        model = json.load(response)
    named = f"{model['name']} {model['version']}"
    assert demo.page.locator("#who").inner_text() == named
    assert named in demo.page.locator("#model").inner_text()
    assert demo.page.locator("#bars li > span:first-child").all_inner_texts() == model["labels"]
