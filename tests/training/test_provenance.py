"""Every result says when, where and from which code it was made."""

from __future__ import annotations

import json
import os

import pytest

from training.provenance import commit, provenance


def test_the_record_names_commit_versions_and_hardware() -> None:
    record = provenance()

    assert set(record) == {
        "date", "commit", "python", "packages", "system", "machine", "processor",
        "instruction_sets", "cores", "memory_gib", "load_average",
    }  # fmt: skip
    assert record["packages"]["numpy"]
    assert record["cores"] == os.cpu_count()
    assert json.loads(json.dumps(record)) == record
    assert provenance() is record  # of the first call


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training image holds no git. A record must not cost the finished training."""
    assert commit() != ""
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit() == "unknown"
