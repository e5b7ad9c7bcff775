"""What can be said of the pages without a browser: small files, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from lambda_function import REPOSITORY
from lambda_function.http import pages

FOLDER = REPOSITORY / "lambda_function" / "http"
MAX_BYTES = 50_000
LOADED = {"src", "srcset", "href", "poster", "data", "action", "background"}


class Elements(html.parser.HTMLParser):
    """Collects (tag, {attribute: value}) of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(params=["page.html", "docs.html"])
def page(request: pytest.FixtureRequest) -> str:
    """Return each page."""
    return (FOLDER / request.param).read_text(encoding="utf-8")


def test_it_is_under_50_kb(page: str) -> None:
    assert len(page.encode()) < MAX_BYTES


def test_it_has_one_plain_style_and_one_plain_script(page: str) -> None:
    found = [(tag, attrs) for tag, attrs in Elements(page).found if tag in ("script", "style")]
    assert found == [("style", {}), ("script", {})]


def test_it_has_no_style_and_no_event_attributes(page: str) -> None:
    names = {name for _, attrs in Elements(page).found for name in attrs}
    assert not [name for name in names if name == "style" or name.startswith("on")]


def test_it_loads_nothing_from_elsewhere(page: str) -> None:
    values = [v for _, attrs in Elements(page).found for n, v in attrs.items() if n in LOADED]
    assert values  # the icon and the links
    assert not [v for v in values if re.match(r"[a-z]+:|//|/", v) and not v.startswith("data:")]
    assert not re.search(r"@import|url\(", page.split("</style>")[0])


def test_it_never_turns_text_into_markup(page: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_policy_allows_exactly_its_style_and_script(page: str) -> None:
    policy = dict(part.split(" ", 1) for part in pages.content_security_policy(page).split("; "))
    assert policy["script-src"] == hash_of(page, "script")
    assert policy["style-src"] == hash_of(page, "style")
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"


def hash_of(page: str, tag: str) -> str:
    """Return the CSP source of a block, found by cutting instead of by the server's pattern."""
    content = page.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_its_example_is_a_small_copy_of_our_own_image() -> None:
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    name = re.search(r"// (examples/[^\s,]+)", page)
    data = re.search(r"EXAMPLE_WEBP = '([^']+)'", page)
    assert name and data
    small = Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB")
    ours = Image.open(REPOSITORY / name[1]).convert("RGB").resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - np.asarray(ours, float)).mean() < 4  # of 255
