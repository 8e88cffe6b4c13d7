"""The ranges against what others compute from the same data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from sam_deploy.precision.quantize import FP8, INT8, UINT8, Span, span
from sam_deploy.precision.quantize.histogram import BINS, Histogram
from sam_deploy.precision.quantize.thresholds import levels, threshold
from sam_deploy.quantization import Quantization

pytestmark = pytest.mark.long


def filled(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.update(np.asarray(batch, np.float32))
    return histogram


def found(method, x, grid=INT8, **policy):
    return threshold(filled(x), Quantization(method=method, **policy), grid)


def sample(kind, size=200_000, seed=0):
    random = np.random.default_rng(seed)
    return {
        "normal": lambda: random.standard_normal(size),
        "laplace": lambda: random.laplace(size=size),
        "gelu": lambda: np.maximum(random.standard_normal(size), -0.17) * random.random(size),
        "relu": lambda: np.maximum(random.standard_normal(size), 0),
        "student": lambda: random.standard_t(4, size),
    }[kind]().astype(np.float32)


KINDS = ["normal", "laplace", "gelu", "relu", "student"]


@pytest.mark.parametrize("kind", ["normal", "laplace", "student"])
def test_entropy_is_onnxruntimes(kind):
    x = sample(kind)
    bins, levels = 2049, 255  # of both signs; with others its own answer moves by more than 10 %
    histogram = np.histogram(x, bins=bins, range=(-np.abs(x).max(), np.abs(x).max()))
    collector = HistogramCollector("entropy", True, bins, levels, 99.99, "same")
    high = collector.get_entropy_threshold((*histogram, x.min(), x.max(), 0), levels)[1]
    assert found("entropy", x) == pytest.approx(float(high), rel=0.1)
    assert found("entropy", x) < np.abs(x).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99, 100.0])
def test_percentile_is_numpys(kind, percentile):
    x = sample(kind)
    expected = np.percentile(np.abs(x), percentile)
    width = np.abs(x).max() / BINS
    assert abs(found("percentile", x, percentile=percentile) - expected) <= 2 * width + 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [INT8, FP8], ids=["int8", "fp8"])
def test_mse_is_as_good_as_a_search_over_the_values_themselves(kind, grid):
    x = sample(kind, 20_000).astype(np.float64)

    def error(limit):
        scale = limit / grid.largest
        return float(np.mean(np.square(grid.rounded(x / scale) * scale - x)))

    best = min(error(limit) for limit in np.linspace(0.02, 1, 200) * np.abs(x).max())
    assert error(found("mse", x, grid)) <= 1.03 * best
    assert error(found("mse", x, grid)) <= error(np.abs(x).max())


def test_minmax_clips_nothing():
    x = sample("student")
    assert found("minmax", x) == np.abs(x).max()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("factor", [1e-40, 1e-30, 1e-3, 1.0, 1e6, 1e30])
def test_a_range_grows_with_its_values(method, factor):
    x = sample("normal", 20_000)
    usual = found(method, x)
    assert 0 < usual <= np.abs(x).max()
    assert found(method, x * np.float32(factor)) == pytest.approx(usual * factor, rel=1e-2)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_all_zeros_and_constants(method):
    assert found(method, np.zeros((3, 4))) == 0
    assert found(method, np.full(1000, -2.5)) == pytest.approx(2.5, rel=1e-2)


@settings(max_examples=50, deadline=None)
@given(
    scales=st.lists(st.sampled_from([0.0, 1e-6, 0.01, 0.5, 1.0, 7.0, 1e4]), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_range_that_grows_loses_nothing(scales, seed):
    random = np.random.default_rng(seed)
    batches = [random.standard_normal(200).astype(np.float32) * scale for scale in scales]
    histogram = filled(*batches)
    everything = np.abs(np.concatenate(batches))
    assert histogram.counts.sum() == everything.size
    assert histogram.largest == everything.max()
    assert histogram.largest <= histogram.limit < 2 * histogram.largest or not everything.any()
    # numpy's own histogram over the range that was reached; a value on an edge may go either way
    edges = np.linspace(0, histogram.limit or 1, BINS + 1)
    known = np.histogram(everything, edges)[0]
    assert np.abs(np.cumsum(known) - np.cumsum(histogram.counts)).max() <= len(scales) + 1


@settings(max_examples=30, deadline=None)
@given(parts=st.integers(1, 20), seed=st.integers(0, 9))
@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_batches_give_what_the_whole_gives(method, parts, seed):
    x = sample("laplace", 10_000, seed)
    policy = Quantization(method=method)
    whole, streamed = filled(x), filled(*np.array_split(x, parts))
    once, batchwise = (threshold(h, policy, INT8) for h in (whole, streamed))
    # its bins are up to twice as wide
    assert batchwise == pytest.approx(once, rel=0.2 if method == "entropy" else 0.08)
    assert streamed.counts.shape == whole.counts.shape  # and it has not grown


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        filled([1.0, 2.0], [3.0, bad])


ENDS = {
    "normal": lambda x: x,
    "as after a ReLU": lambda x: np.maximum(x, 0),
    "as after a GELU": lambda x: x / (1 + np.exp(-1.7 * x)),
    "one end far away": lambda x: np.where(np.arange(len(x)) < 20, 12.0, x),
}


@pytest.mark.parametrize("kind", ENDS)
def test_uint8_is_as_good_as_a_search_over_both_ends(kind):
    x = ENDS[kind](np.random.default_rng(0).standard_normal(20_000))

    def error(range_):
        scale, zero = range_.uint8()
        units = np.clip(np.rint(x / scale) + zero, 0, 255)
        return float(np.mean(np.square((units - zero) * scale - x)))

    limits = np.linspace(0.02, 1, 200) * np.abs(x).max()
    ends = (min(x.min(), 0.0), max(x.max(), 0.0))
    best = min(error(Span(max(ends[0], -limit), min(ends[1], limit))) for limit in limits)
    assert error(span(filled(x.astype(np.float32)), Quantization(), UINT8)) <= 1.03 * best


def test_entropy_of_uint8_has_the_levels_of_its_longer_side():
    ends = {(-1, 1): 128, (0, 1): 256, (-1, 3): 192}
    for (low, high), expected in ends.items():
        histogram = filled(np.linspace(low, high, 999, dtype=np.float32))
        assert levels(histogram, UINT8) == expected
        assert levels(histogram, INT8) == 128
