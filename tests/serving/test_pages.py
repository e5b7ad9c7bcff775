"""What the pages say of the model comes from the artifact."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lambda_function.http import pages
from lambda_function.metadata import read_metadata
from tests.support.paths import TESTS

METADATA = dataclasses.replace(
    read_metadata(TESTS / "data" / "tiny.tflite"),
    name="screws",
    version="7",
    title="Which screw is it?",
    subject="screw",
    licence="not stated",
    labels=("M3 & M4", 'the "long" one'),
)
PATHS = ("/", "/docs", "/openapi.json")


def test_title_and_subject_are_the_artifacts():
    page = pages.serve("/", METADATA).body

    assert "<title>Which screw is it?</title>" in page
    assert "<h1>Which screw is it?</h1>" in page
    assert "an image of one screw." in page


@pytest.mark.parametrize("path", PATHS)
def test_no_page_speaks_of_another_model(path):
    text = pages.serve(path, METADATA).body

    assert "{{" not in text
    words = text.lower().split("// examples/")[0]
    assert not [word for word in ("garment", "clothing", "pants") if word in words]


def test_words_of_an_artifact_are_escaped():
    evil = dataclasses.replace(METADATA, title="<script>alert(1)</script>", subject='x" onload="')

    page = pages.serve("/", evil).body

    assert "<script>alert" not in page
    assert 'onload="' not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    before = pages.serve("/", METADATA).headers["content-security-policy"]
    assert pages.serve("/", evil).headers["content-security-policy"] == before


def test_the_api_description_stays_json():
    document = json.loads(pages.serve("/openapi.json", METADATA).body)

    assert document["info"]["title"] == "screws"
    assert document["info"]["description"].startswith("Which screw is it? ")
    assert document["info"]["license"]["name"] == "not stated"
    assert 'the "long" one' not in json.dumps(document["paths"])
    assert "M3 & M4" in json.dumps(document)
    assert "M3 &amp; M4" in pages.serve("/docs", METADATA).body
