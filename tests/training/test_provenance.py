"""Every result says when, where and from which code it was made."""

from __future__ import annotations

import json
import os

import pytest

from lambda_function import REPOSITORY
from training.provenance import commit, provenance, read_provenance


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


def test_older_result_files_are_translated() -> None:
    older = {
        "date": "2026-01-02", "commit": "abc1234", "uncommitted_changes": True, "load_before": 0.5,
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "memory_gib": 23.5, "machine": "x86_64"},
    }  # fmt: skip
    record = read_provenance(older)

    assert record["commit"] == "abc1234-dirty"
    assert (record["processor"], record["cores"]) == ("AMD EPYC", 2)
    assert record["load_average"] == 0.5


def test_every_committed_result_has_a_record() -> None:
    files = sorted((REPOSITORY / "benchmarks" / "results").rglob("*.json"))
    assert files
    for file in files:
        record = read_provenance(json.loads(file.read_text()))
        assert {"date", "commit", "processor", "cores"} <= record.keys(), file.name
