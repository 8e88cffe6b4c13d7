"""What is timed is right, round after round; what is not has no time, and a reason."""

import os
import re
import signal
import time
from functools import partial

import msgspec
import numpy as np
import pytest

from sam_deploy.bench.contestant import Contestant
from sam_deploy.bench.race import race
from sam_deploy.errors import CheckFailed
from sam_deploy.example import Example
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES

pytestmark = pytest.mark.long
EXAMPLES = {
    n: Example({"x": x}, {"y": 2 * x})
    for n, x in {n: np.arange(n * 4, dtype=np.float32).reshape(n, 4) for n in (1, 3)}.items()
}
CLOSE = msgspec.structs.replace(DEFAULT_TOLERANCES["fp32"], relative_rms=1e-3)


def doubles(pause_s=0.0):
    def run(inputs):
        time.sleep(pause_s)
        return {"y": 2 * inputs["x"]}

    return run


def wrong(how):
    calls = 0

    def run(inputs):
        nonlocal calls
        calls += 1
        y = 2 * inputs["x"]
        if how == "factor":
            y = y * 1.01
        elif how == "later" and calls > 12:
            y = y + 1
        elif how == "nan":
            y[0, 0] = np.nan
        elif how == "neighbours":  # right at batch 1
            y = y[::-1]
        elif how == "name":
            return {"z": y}
        elif how == "shape":
            y = y[:, :3]
        elif how == "raises" and calls > 12:
            raise ValueError("it had enough")
        elif how == "killed" and calls > 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": y}

    return run


def does_not_load(error):
    raise error


def raced(*contestants, examples=EXAMPLES, rounds=3):
    made = [
        Contestant(str(number), "peer", "fp32", CLOSE, make)
        for number, make in enumerate(contestants)
    ]
    return race(made, examples, rounds, Progress())


def test_times_are_of_the_runs_alone():
    entries, left_out = raced(doubles, partial(doubles, 0.02))
    assert left_out == []
    quick, slow = entries
    for entry in entries:
        assert [timing.batch for timing in entry.timings] == [1, 3]
        assert entry.load_s > 0
        assert 10e6 < entry.peak_bytes < 10e9
        for timing in entry.timings:
            assert timing.relative_rms == 0
            assert timing.samples_per_s == pytest.approx(
                1e3 * timing.batch / timing.median_ms, 0.01
            )
    for timing in slow.timings:
        assert timing.median_ms >= 20
    assert quick.timings[0].median_ms < 20


@pytest.mark.parametrize(
    ("how", "said", "disagrees"),
    [
        ("factor", "^at batch 1 y is off by a relative RMS of 0.0", True),
        ("later", "y is off by a relative RMS of ", True),
        ("nan", "^at batch 1 y is off by a relative RMS of inf, at most 0.001$", True),
        ("neighbours", "^at batch 3 y is off by a relative RMS of ", True),
        ("name", "it has the outputs z, not y", True),
        ("shape", r"y has shape \(1, 3\), the reference's is \(1, 4\)", True),
        ("raises", "^ValueError: it had enough$", False),
        ("killed", "its process ended with -9", False),
    ],
)
def test_what_is_wrong_has_no_time(how, said, disagrees):
    [good], [bad] = raced(doubles, partial(wrong, how))
    assert good.name == "0"
    assert (bad.name, bad.disagrees) == ("1", disagrees)
    assert re.search(said, bad.reason), bad.reason


def test_an_output_of_one_number_can_be_right():
    one = {1: Example({"x": np.ones((1, 1), np.float32)}, {"y": np.full((1, 1), 2, np.float32)})}
    [entry], [left_out] = raced(doubles, partial(wrong, "factor"), examples=one)
    assert (entry.name, left_out.name, left_out.disagrees) == ("0", "1", True)


def test_what_does_not_load():
    entries, left_out = raced(
        partial(does_not_load, ImportError("no such library")),
        partial(does_not_load, CheckFailed("its outputs are others")),
        doubles,
    )
    assert [entry.name for entry in entries] == ["2"]
    assert [(one.reason, one.disagrees) for one in left_out] == [
        ("ImportError: no such library", False),
        ("its outputs are others", True),
    ]
