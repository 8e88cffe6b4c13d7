"""Every slot of a batch gives its own sample's result, whatever stands beside it."""

import numpy as np
import pytest

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity import normal_samples
from sam_deploy.parity.batches import chosen_rows, expected_alone, measure_batches
from sam_deploy.parity.judge import batch_figures, reasons
from sam_deploy.recipe import DEFAULT_TOLERANCES

INPUTS = [TensorSpec(name="x", dtype="float32", dims=["batch", 6])]
OUTPUTS = [TensorSpec(name="y", dtype="float32", dims=["batch", 4])]
WEIGHT = np.random.RandomState(0).standard_normal((6, 4)).astype(np.float32)
LIMITS = DEFAULT_TOLERANCES["fp32"]


def right(inputs):
    return {"y": inputs["x"] @ WEIGHT}


class Artefact:
    backend = "a test"

    def __init__(self, change):
        self.change = change

    def run(self, inputs):
        return {"y": self.change(right(inputs)["y"].copy())}


def found(change, sizes=(1, 4, 8), count=9, reference=right):
    rows = chosen_rows(normal_samples("x", count, 6), max(sizes))
    expected = expected_alone(reference, rows, None)
    batches = measure_batches(Artefact(change), rows, expected, INPUTS, OUTPUTS, sizes)
    return [reason for one in batches for reason in reasons(batch_figures(one, LIMITS))], batches


def test_a_right_artefact_is_right_in_every_slot():
    reasons, batches = found(lambda y: y)
    assert reasons == []
    assert [one.size for one in batches] == [1, 4, 8]
    assert [len(one.slots_rms) for one in batches] == [1, 4, 8]


def copied(y):
    if len(y) > 1:
        y[1] = y[0]
    return y


def leaking(y):
    y[1:] += 0.001 * y[:-1]
    return y


def averaged(y):
    return y + np.float32(0.001) * y.mean(axis=0)


def wrong_when_large(y):
    if len(y) == 8:
        y[7] *= 1.01
    return y


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (copied, "batch of 4: slot 1 is off by a relative RMS of"),
        (leaking, "batch of 4: a sample's result depends on its slot or its neighbours"),
        (averaged, "batch of 4: slot"),
        (wrong_when_large, "batch of 8: slot 7 is off by"),
        (lambda y: y[::-1], "batch of 4: slot"),
    ],
)
def test_a_wrong_slot_is_named(change, said):
    reasons, _ = found(change)
    assert any(reason.startswith(said) for reason in reasons), reasons


def test_fewer_samples_than_slots_are_repeated():
    reasons, batches = found(lambda y: y, count=3)
    assert reasons == []
    assert len(batches[-1].slots_rms) == 8
    assert found(wrong_when_large, count=3)[0]


def test_a_batch_that_does_not_run_says_so():
    def refusing(y):
        if len(y) > 4:
            raise RuntimeError("out of memory")
        return y

    with pytest.raises(CheckFailed, match="a batch of 8 does not run: out of memory"):
        found(refusing)


def test_rows_are_spread_over_all_samples():
    samples = normal_samples("x", 100, 6)
    rows = chosen_rows(samples, 4)
    every = [sample["x"] for _, sample in samples.make(0)]
    for row, number in zip(rows, (0, 25, 50, 75), strict=True):
        np.testing.assert_array_equal(row["x"][0], every[number])
