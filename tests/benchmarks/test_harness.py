"""Statistics, interleaved runs and result files."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.baselines import COURSE, HANDLERS, OURS, SOURCES, BaselineError, at_size
from benchmarks.harness import (
    classify,
    classify_batch,
    example_server,
    origin,
    run_once,
    run_rounds,
    summarise,
    write_result,
)
from benchmarks.masking import Lane
from tests.support.emulator import require_emulator
from tools.emulator import EmulatorError, Reply

AS_IS = Lane("machine")


def test_a_summary_holds_median_quartiles_and_95th_percentile():
    summary = summarise([5, 1, 4, 2, 3])
    # positions 0..4: the quartiles are at 1 and 3, the 95th percentile at 3.8
    assert (summary.median, summary.low, summary.high, summary.count) == (3, 2, 4, 5)
    assert summary.p95 == pytest.approx(4.8)


def test_a_summary_of_one_measurement_is_that_measurement():
    assert dataclasses.astuple(summarise([7.0])) == (7, 7, 7, 7, 1)


def test_a_summary_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no measurement"):
        summarise([])


class ScriptedEmulator:
    """Responds to every event with the next of these bodies, after 0.5 s each."""

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
def test_a_fast_error_is_no_fast_response(body):
    with pytest.raises(EmulatorError, match="ours responded"):
        classify(ScriptedEmulator(body), OURS, {})


def test_a_handler_without_batches_gets_one_image_after_another():
    emulator = ScriptedEmulator(SCORES, SCORES, SCORES)
    assert classify_batch(emulator, COURSE, ["a", "b", "c"]) == pytest.approx(1.5)
    assert emulator.events == [{"url": "a"}, {"url": "b"}, {"url": "c"}]


def test_a_batch_counts_only_if_every_image_was_classified():
    good = {"predictions": []}
    emulator = ScriptedEmulator({"results": [good, good]})
    assert classify_batch(emulator, OURS, ["a", "b"]) == 0.5
    assert emulator.events == [{"urls": ["a", "b"]}]
    with pytest.raises(EmulatorError, match="ours responded"):
        classify_batch(ScriptedEmulator({"results": [good, {"error": {}}]}), OURS, ["a", "b"])


class CountingHandler:
    """A handler whose emulator responds at once. It records (handler, lane, requests)."""

    takes_batches = True

    def __init__(self, name, starts):
        self.name = name
        self.starts = starts

    def event(self, url):
        return {"url": url}

    def emulator(self, lane, **_):
        self.starts.append([self.name, lane.name, 0])
        return self

    def __enter__(self):
        self.started_at = time.perf_counter()
        return self

    def __exit__(self, *_):
        pass

    def invoke(self, event):
        self.starts[-1][2] += 1
        results = [{"predictions": []} for _ in event.get("urls", ())]
        return Reply({"statusCode": 200, "results": results}, elapsed_s=0.5)

    def cpu_seconds(self):
        return 1.0

    def peak_resident_bytes(self):
        return 100


def test_a_round_goes_through_all_handlers_and_lanes_each_after_an_uncounted_start():
    starts: list[list] = []
    handlers = [CountingHandler(name, starts) for name in ("a", "b")]
    lanes = {name: Lane(name) for name in ("avx2", "machine")}

    runs = run_rounds(handlers, lanes, 2, requests=3, batch=2)

    one_round = [
        [handler, lane, requests]
        for handler in ("a", "b")
        for lane in ("avx2", "machine")
        for requests in (1, 4)  # one, then three and the batch
    ]
    assert starts == one_round * 2
    assert len(runs["avx2"]["b"]) == 2
    assert runs["machine"]["a"][0].warm_s == (0.5, 0.5)
    assert runs["machine"]["a"][0].slow_batch_s == 0.5


@pytest.mark.release
@pytest.mark.emulator
@pytest.mark.timeout(120)
def test_a_run_of_the_function_yields_every_figure():
    require_emulator()
    handler = dataclasses.replace(OURS, locks=(Path(sys.prefix).name,))
    if handler.venv != Path(sys.prefix):
        pytest.skip(f"needs to run in an environment below {handler.venv.parent}")
    with example_server() as server:
        run = run_once(handler, AS_IS, server, requests=3, batch=2)
    assert len(run.warm_s) == 2
    assert 0 < min(run.warm_s) < run.cold_s < 60
    assert 0 < run.cpu_s < 10
    assert 20e6 < run.peak_bytes < 2e9
    assert run.slow_batch_s > 0.2  # the servers take that long


def test_a_result_is_written_as_plain_rounded_json(tmp_path):
    path = write_result("x", {"a": summarise([1.23456789]), 500: (1, 2)}, folder=tmp_path)
    assert json.loads(path.read_text()) == {
        "a": {"median": 1.235, "low": 1.235, "high": 1.235, "p95": 1.235, "count": 1},
        "500": [1, 2],
    }


def test_a_record_names_date_commit_machine_and_instruction_sets():
    record = origin()["provenance"]
    assert {"date", "commit", "processor", "cores", "load_average"} <= record.keys()
    assert isinstance(record["instruction_sets"], list)
    assert origin({"machine": AS_IS})["provenance"]["instruction_sets"].keys() == {"machine"}


# --- baselines ---------------------------------------------------------------


@pytest.mark.parametrize("handler", HANDLERS[1:], ids=lambda handler: handler.name)
def test_a_baseline_names_its_input_size_once_so_that_it_can_be_replaced(handler):
    lines = (SOURCES / handler.source).read_text().splitlines()
    assert [line for line in lines if "299" in line] == [
        line for line in lines if "(299, 299)" in line
    ]
    assert len([line for line in lines if "299" in line]) == 1


def test_the_error_for_a_missing_model_names_the_command_that_writes_it(tmp_path):
    handler = dataclasses.replace(at_size(COURSE, 150), models=tmp_path)
    with pytest.raises(
        BaselineError, match=r"150/clothing-model\.tflite is missing.*benchmarks models"
    ):
        handler.stage()


@pytest.mark.training
def test_a_network_is_built_anew_at_another_size_with_its_weights():
    import keras
    import numpy as np

    from benchmarks.baselines.build import resized

    images = keras.Input((20, 20, 3))
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(images)
    features = keras.layers.GlobalAveragePooling2D()(hidden)
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(features))
    fresh = resized(model, 30)

    assert fresh.input_shape == (None, 30, 30, 3)
    # An even image has the same average at any size, so the predictions must agree.
    even = [np.full((1, size, size, 3), 0.5, np.float32) for size in (20, 30)]
    before, after = (np.asarray(m(x)) for m, x in zip((model, fresh), even, strict=True))
    np.testing.assert_allclose(after, before, atol=1e-4)  # sums in another order
