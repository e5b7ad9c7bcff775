"""The benchmarks' arithmetic, and that the README shows what the result files say."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.baselines import (
    COURSE,
    COURSE_ONNX,
    OURS,
    SAM_TENSORFLOW,
    SOURCES,
    PeerError,
    at_size,
)
from benchmarks.compare import ratios
from benchmarks.index import commit_of, index
from benchmarks.measure import RESULTS, summarise, surroundings, write_result
from benchmarks.rounds import ask, ask_batch, example_server, run_from_cache, run_once
from benchmarks.table import (
    BEGIN,
    END,
    README,
    comparison_table,
    current_block,
    further,
    note,
    readme_block,
    results_page,
)
from deploy.costs import usd_per_million
from tests.support.emulator import require_emulator
from tests.support.paths import TESTS
from tools.emulator import EmulatorError, Reply
from training.files import replace_marked

TINY = TESTS / "data" / "tiny.tflite"


# --- statistics --------------------------------------------------------------


def test_a_summary_holds_median_quartiles_and_95th_percentile():
    found = summarise([5, 1, 4, 2, 3])
    # positions 0..4: the quartiles are at 1 and 3, the 95th percentile at 3.8
    assert (found.median, found.low, found.high, found.count) == (3, 2, 4, 5)
    assert found.p95 == pytest.approx(4.8)


def test_a_summary_of_one_measurement_is_that_measurement():
    found = summarise([7.0])
    assert (found.median, found.low, found.high, found.p95, found.count) == (7, 7, 7, 7, 1)


def test_a_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no measurement"):
        summarise([])


# --- prices ------------------------------------------------------------------


def test_a_million_requests_of_100_ms_at_1_gb():
    # 0.1 GB-s x 1e6 x 0.0000166667 = 1.66667, and 0.20 for the requests
    assert usd_per_million(0.1, memory_mb=1024, architecture="x86_64") == pytest.approx(1.86667)
    assert usd_per_million(0.1, memory_mb=1024, architecture="arm64") == pytest.approx(1.53334)


def test_duration_is_billed_in_whole_milliseconds_rounded_up():
    prices = [usd_per_million(s, memory_mb=1024, architecture="x86_64") for s in (0.1001, 0.101)]
    assert prices[0] == pytest.approx(prices[1])


def test_a_batch_shares_its_request():
    alone = usd_per_million(1.6, memory_mb=1769, architecture="arm64")
    shared = usd_per_million(1.6, memory_mb=1769, architecture="arm64", images_per_request=16)
    assert shared == pytest.approx(alone / 16)


# --- the limit ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "weights", "output", "macs"),
    [
        ("CONV_2D", (32, 3, 3, 3), (1, 111, 111, 32), 111 * 111 * 32 * 27),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 64), (1, 10, 10, 64), 6400 * 9),
        ("FULLY_CONNECTED", (10, 2048), (1, 10), 20480),
    ],
)
def test_multiply_adds_of_an_operation(name, weights, output, macs):
    from benchmarks.roofline import operation_macs

    assert operation_macs(name, weights, output) == macs


def test_multiply_adds_of_the_tests_own_model():
    """It multiplies the means of three channels by a 3 x 4 matrix, and nothing else."""
    from benchmarks.roofline import count_macs, weights_type

    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="counts with ai-edge-litert")
    interpreter = litert.Interpreter(model_path=str(TINY))
    interpreter.allocate_tensors()
    assert count_macs(interpreter) == 12
    assert weights_type(interpreter) == "float32"


# --- peers -------------------------------------------------------------------


class Scripted:
    """An emulator that answers every invoke with the next of these bodies, in 0.5 s each."""

    def __init__(self, *bodies):
        self.bodies = list(bodies)
        self.events = []

    def invoke(self, event):
        self.events.append(event)
        return Reply(self.bodies.pop(0), 0.5)


SCORES = {"pants": 0.9, "skirt": 0.1}
PROBLEM = {"statusCode": 502, "body": "{}"}
CRASH = {"errorType": "ValueError", "errorMessage": "pants"}


@pytest.mark.parametrize("body", [PROBLEM, CRASH, "Task timed out after 30.00 seconds", None])
def test_a_fast_error_is_no_fast_answer(body):
    with pytest.raises(EmulatorError, match="ours answered"):
        ask(Scripted(body), OURS, {})


def test_a_peer_without_batches_is_asked_one_by_one():
    emulator = Scripted(SCORES, SCORES, SCORES)
    assert ask_batch(emulator, COURSE, ["a", "b", "c"]) == pytest.approx(1.5)
    assert emulator.events == [{"url": "a"}, {"url": "b"}, {"url": "c"}]


def test_a_batch_counts_only_when_every_picture_was_classified():
    good = {"predictions": []}
    emulator = Scripted({"results": [good, good]})
    assert ask_batch(emulator, OURS, ["a", "b"]) == 0.5
    assert emulator.events == [{"urls": ["a", "b"]}]
    with pytest.raises(EmulatorError, match="ours answered"):
        ask_batch(Scripted({"results": [good, {"error": {}}]}), OURS, ["a", "b"])


@pytest.mark.parametrize("peer", [COURSE, COURSE_ONNX, SAM_TENSORFLOW], ids=lambda peer: peer.name)
def test_a_peer_names_its_input_size_once_so_that_it_can_be_changed(peer):
    lines = (SOURCES / peer.source).read_text().splitlines()
    assert len([line for line in lines if "(299, 299)" in line]) == 1
    assert len([line for line in lines if "299" in line]) == 1


def test_a_missing_model_is_named_with_the_command_that_makes_it(tmp_path):
    peer = dataclasses.replace(at_size(COURSE, 150), models=tmp_path)
    with pytest.raises(
        PeerError, match=r"150/clothing-model\.tflite is missing: .*baselines\.build"
    ):
        peer.stage()


@pytest.mark.training
@pytest.mark.parametrize("nested", [False, True])
def test_a_network_is_built_anew_at_another_size_with_its_weights(nested):
    import keras
    import numpy as np

    from benchmarks.baselines.build import resized

    def layers(images):
        hidden = keras.layers.Conv2D(4, 3, activation="relu")(images)
        return keras.layers.GlobalAveragePooling2D()(hidden)

    images = keras.Input((20, 20, 3))
    if nested:
        inner = keras.Input((20, 20, 3))
        features = keras.Model(inner, layers(inner))(images)
    else:
        features = layers(images)
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(features))
    fresh = resized(model, 30)

    assert fresh.input_shape == (None, 30, 30, 3)
    # An even picture has the same average at any size, so the answers must agree.
    even = [np.full((1, size, size, 3), 0.5, np.float32) for size in (20, 30)]
    before, after = (np.asarray(m(x)) for m, x in zip((model, fresh), even, strict=True))
    np.testing.assert_allclose(after, before, atol=1e-4)  # sums in another order


class CountedPeer:
    """A peer whose emulator answers at once and writes down what it was asked."""

    name, takes_batches = "counted", True

    def __init__(self):
        self.starts = []

    def event(self, url):
        return {"url": url}

    def emulator(self, **_):
        self.starts.append(0)
        return self

    def __enter__(self):
        self.started_at = time.perf_counter()
        return self

    def __exit__(self, *_):
        pass

    def invoke(self, event):
        self.starts[-1] += 1
        results = [{"predictions": []} for _ in event.get("urls", ())]
        return Reply({"statusCode": 200, "results": results}, elapsed_s=0.5)

    def cpu_seconds(self):
        return 1.0

    def peak_resident_bytes(self):
        return 100


def test_every_counted_run_directly_follows_an_uncounted_start_of_the_same_peer():
    peer = CountedPeer()
    with example_server() as server:
        run = run_from_cache(peer, server, requests=3, batch=2)
    assert peer.starts == [1, 4]  # one request; then three and the batch
    assert run.warm_s == (0.5, 0.5)
    assert run.slow_batch_s == 0.5


@pytest.mark.emulator
@pytest.mark.timeout(120)
def test_a_run_of_ours_yields_every_figure():
    require_emulator()
    here = Path(sys.prefix)
    peer = dataclasses.replace(OURS, locks=(here.name,))
    if peer.venv != here:
        pytest.skip(f"needs to run in an environment below {peer.venv.parent}")
    with example_server() as server:
        run = run_once(peer, server, requests=3, batch=2)
    assert len(run.warm_s) == 2
    assert 0 < min(run.warm_s) < run.cold_s < 60
    assert 0 < run.cpu_s < 10
    assert 20e6 < run.peak_bytes < 2e9
    assert run.slow_batch_s > 0.2  # the servers take that long


# --- result files and tables -------------------------------------------------


def figure(scale):
    """A peer's figures: every one ``scale`` times that of the base."""
    spread = {"median": scale, "low": scale, "high": 2 * scale, "p95": 3 * scale, "count": 4}
    return {
        "title": f"peer {scale}",
        "versions": {"numpy": "2.4.6"},
        "cold_s": spread,
        "warm_s": spread,
        "cpu_s": spread,
        "peak_mb": spread,
        "slow_pictures_per_s": spread,
        "artifact_mb": scale,
        "installed_mb": scale,
        "usd_per_million": {"x86_64": scale, "arm64": scale},
        "usd_per_million_slow": {"x86_64": scale, "arm64": scale},
    }


def compared():
    half = figure(0.5)
    return {
        "date": "2026-01-02",
        "commit": "abc",
        "uncommitted_changes": False,
        "hardware": {"cpu": "Some CPU"},
        "memory_mb": 1769,
        "rounds": 10,
        "prices": {"region": "US East", "date": "2026"},
        "peers": {
            "ours": {**half, "ratio": ratios(half, figure(1.0))},
            "course": {**figure(1.0), "ratio": ratios(figure(1.0), figure(1.0))},
        },
    }


def test_ratios_are_to_the_base():
    assert set(ratios(figure(0.5), figure(1.0)).values()) == {0.5}


def test_the_table_has_a_row_a_measure_and_a_column_a_peer():
    lines = comparison_table(compared()).splitlines()
    assert lines[0] == "|  | peer 0.5 | peer 1.0 |"
    assert lines[2] == (
        "| process start to first answer | 0.500 s (0.500-1.000) [0.50] "
        "| 1.000 s (1.000-2.000) [1.00] |"
    )
    assert "| warm request, 95th percentile | 1.500 s [0.50] | 3.000 s [1.00] |" in lines
    dollars = "| $0.50 / $0.50 [0.50] | $1.00 / $1.00 [1.00] |"
    assert f"| a million predictions, x86 / arm64 {dollars}" in lines
    assert {line.count("|") for line in lines} == {4}


def test_the_readme_has_the_rows_that_decide_and_the_peers_as_they_are_published(tmp_path):
    result = compared()
    result["peers"]["course-224"] = result["peers"]["course"]
    (tmp_path / "compare.json").write_text(json.dumps(result))
    lines = readme_block(tmp_path).splitlines()
    assert lines[0] == "|  | peer 0.5 | peer 1.0 |"
    assert lines[2] == "| process start to first answer | 0.500 s [0.50] | 1.000 s [1.00] |"
    assert len(lines) == 2 + 6 + 2
    assert "(benchmarks/results/README.md)" in lines[-1]


def test_accuracy_stands_with_its_interval_where_it_was_measured():
    accuracy = {"peers": {"ours": {"accuracy": 0.9382, "correct": 349, "total": 372}}}
    last = comparison_table(compared(), accuracy).splitlines()[-1]
    assert last == "| accuracy, test split (95 % interval) | 0.9382 (0.909-0.958) |  |"


def test_further_measurements_are_a_line_each_where_they_were_made(tmp_path):
    assert further(tmp_path) == []
    points = [
        {"at": at, "elapsed_s": {"median": at / 10}, "peak_mb": 100 + at} for at in (1, 2, 32)
    ]
    times = {"JPEG": {"ratio": 0.263}, "progressive JPEG": {"ratio": 0.524}}
    origin = {"commit": "0123456789ab", "uncommitted_changes": False}
    results = {
        "growth": {**dict.fromkeys(("megapixels", "batch", "threads"), points), **origin},
        "batch": {"ratio": {"median": 1.046}, "bar": 1.15, **origin},
        "large_photos": {"time": times, **origin, "uncommitted_changes": True},
        "tuning_speed": {
            "our_seconds": 61.2, "ratio": 93.4, "notebook_epoch_seconds": [30.0, 31.0],
            "provenance": {"commit": "fedcba9"},
        },
    }  # fmt: skip
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    blank, *added = further(tmp_path)
    assert blank == ""
    assert [line.split(":")[0] for line in added] == [
        "- A batch of 16 pictures from servers taking 200 ms",
        "- Growth",
        "- A 24-megapixel photo, bytes to tensor",
        "- The course's eleven tuning trials",
    ]
    assert "1.05 times the bare work of 16 (bar: 1.15)" in added[0]
    assert added[0].endswith("(`python -m benchmarks.batch --write`; commit `0123456`)")
    assert "1 -> 32 pictures a request 0.100 -> 3.200 s, 101 -> 132 MB" in added[1]
    assert "0.26 of decoding it whole (progressive: 0.52)" in added[2]
    assert added[2].endswith("commit `0123456` with uncommitted changes)")
    assert "61 s, 1/93 of the notebook's way (2 epochs measured" in added[3]
    assert added[3].endswith("(`python -m benchmarks.tuning_speed --write`; commit `fedcba9`)")


def test_the_note_says_when_where_and_from_which_commit():
    text = note(compared())
    for part in ("2026-01-02", "`abc`", "Some CPU", "1,769 MB", "10 interleaved rounds", "US East"):
        assert part in text
    assert "uncommitted" not in text
    assert "uncommitted" in note({**compared(), "uncommitted_changes": True})


def test_only_what_is_between_the_markers_is_replaced():
    text = "a\n<!-- benchmark:begin -->\nold\n<!-- benchmark:end -->\nb"
    fresh = replace_marked(text, (BEGIN, END), "new")
    assert fresh == "a\n<!-- benchmark:begin -->\nnew\n<!-- benchmark:end -->\nb"
    assert current_block(fresh) == "new"
    with pytest.raises(ValueError, match="benchmark:begin"):
        replace_marked("no markers", (BEGIN, END), "new")


def test_the_readme_shows_what_the_result_files_say():
    shown = current_block(README.read_text()) if README.exists() else None
    if shown is None:
        pytest.skip("README.md has no benchmark markers yet")
    assert shown == readme_block(RESULTS).strip("\n"), "run `python -m benchmarks.table --write`"


def test_the_index_names_every_result_and_what_writes_it():
    shown = (RESULTS / "README.md").read_text()
    assert shown == results_page(RESULTS), "run `python -m benchmarks.table --write`"
    assert "| [soak](soak.json) | 5,000 mixed requests | `make soak` | 20" in shown


def test_a_result_of_unknown_origin_is_not_listed(tmp_path):
    (tmp_path / "guess.json").write_text("{}")
    with pytest.raises(KeyError, match="guess"):
        index(tmp_path)


@pytest.mark.parametrize(
    "result",
    [
        {"commit": "0123456789ab", "uncommitted_changes": True},
        {"provenance": {"commit": "0123456-dirty"}},
    ],
)
def test_both_ways_of_saying_that_files_differed_are_shown(result):
    assert commit_of(result) == "`0123456` with uncommitted changes"


def test_result_files_say_when_where_and_from_which_commit():
    names = (
        "compare",
        "coldstart",
        "overhead",
        "limit",
        "growth",
        "batch",
        "accuracy",
        "soak",
        "image_size",
    )
    paths = [path for name in names if (path := RESULTS / f"{name}.json").exists()]
    if not paths:
        pytest.skip("nothing is measured yet: no result file of `make benchmark`")
    for path in paths:
        result = json.loads(path.read_text())
        assert result["date"][:2] == "20", path
        assert len(result["commit"]) >= 7, path
        assert result["hardware"]["cpu"], path


def test_a_result_is_written_as_plain_rounded_json(tmp_path):
    path = write_result("x", {"a": summarise([1.23456789]), 500: (1, 2)}, folder=tmp_path)
    assert json.loads(path.read_text()) == {
        "a": {"median": 1.235, "low": 1.235, "high": 1.235, "p95": 1.235, "count": 1},
        "500": [1, 2],
    }


def test_the_surroundings_name_this_machine_and_commit():
    found = surroundings()
    assert len(found["date"]) == 10
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["memory_gib"] > 0.1
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
