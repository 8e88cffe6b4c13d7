import numpy as np
import pytest

from sam_deploy.bundle import read_bundle
from sam_deploy.errors import InputError
from sam_deploy.plans import BatchProfile
from sam_deploy.runtime import Chosen, Engine, OnnxRunner
from sam_deploy.synthetic import synthetic_images


class Counting:
    """The bundle's ONNX in a plan's place; remembers the batches that it ran."""

    backend = "tensorrt 10.16.1.11"

    def __init__(self, bundle):
        self._onnx = OnnxRunner(bundle / "model.onnx")
        self.batches = []

    def run(self, inputs):
        (x,) = inputs.values()
        self.batches.append(len(x))
        return self._onnx.run(inputs)


@pytest.fixture
def make(tiny_bundle):
    def make(**profile):
        runner = Counting(tiny_bundle)
        chosen = Chosen("tensorrt", runner.backend, "a plan")
        profile = BatchProfile(**profile)
        return Engine(read_bundle(tiny_bundle), runner, chosen, profile=profile), runner

    return make


def test_a_batch_below_the_profile_is_refused_before_the_runner(make):
    engine, runner = make(min=2, opt=3, max=4)
    said = "batch is 1; this plan takes 2 to 4. Give other batches, or set plans.profile"
    with pytest.raises(InputError, match=said):
        engine(np.zeros((1, 3, 64, 64), np.float32))
    assert runner.batches == []
    assert engine(np.zeros((2, 3, 64, 64), np.float32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("batch", "profile", "parts"),
    [
        (5, {"min": 2, "opt": 3, "max": 4}, [2, 3]),
        (9, {"min": 1, "opt": 4, "max": 4}, [3, 3, 3]),
        (5, {"min": 4, "opt": 4, "max": 4}, [4, 4]),  # filled up, and the results dropped
        (4, {"min": 4, "opt": 4, "max": 4}, [4]),
    ],
)
def test_a_batch_above_the_profile_is_split(make, batch, profile, parts):
    engine, runner = make(**profile)
    x = np.random.RandomState(0).standard_normal((batch, 3, 64, 64)).astype(np.float32)
    y = engine(x)
    assert runner.batches == parts
    alone = np.concatenate([make(min=1, opt=1, max=1)[0](row[None]) for row in x])
    np.testing.assert_allclose(y, alone, atol=1e-3 * alone.std())


@pytest.mark.parametrize(
    ("profile", "batches"),
    [
        ({"min": 2, "opt": 3, "max": 4}, [4, 4, 3]),
        ({"min": 4, "opt": 4, "max": 5}, [5, 5, 4]),  # the last is filled up
        ({"min": 1, "opt": 8, "max": 32}, [8, 3]),
        ({"min": 10, "opt": 16, "max": 32}, [10, 10]),
    ],
)
def test_images_are_classified_in_batches_that_the_plan_takes(make, profile, batches):
    engine, runner = make(**profile)
    images = list(synthetic_images(11))
    found = engine.classify(images, top=1)
    assert runner.batches == batches
    expected = make(min=1, opt=8, max=32)[0].classify(images, top=1)
    assert [p[0].class_index for p in found] == [p[0].class_index for p in expected]
