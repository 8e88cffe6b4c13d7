"""Figures gathered batch by batch are those of everything at once."""

import numpy as np
import pytest
from conftest import cosine
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy import agreement
from sam_deploy.parity.figures import OutputFigures


def gathered(actual, reference, sizes, *, classes=True):
    figures = OutputFigures("logits", classes=classes)
    start = 0
    for size in sizes:
        figures.update(actual[start : start + size], reference[start : start + size])
        start += size
    return figures.result()


@st.composite
def pairs(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    random = np.random.RandomState(draw(st.integers(0, 2**31)))
    shape = (sum(sizes), draw(st.integers(2, 6)))
    scale = 10.0 ** draw(st.integers(-6, 6))
    shift = scale * 10.0 ** draw(st.integers(-3, 4)) * draw(st.sampled_from([-1, 0, 1]))
    error = 10.0 ** draw(st.integers(-6, 0))
    reference = random.standard_normal(shape)
    actual = reference + error * random.standard_normal(shape)
    return sizes, (shift + scale * actual), (shift + scale * reference)


@settings(max_examples=200, deadline=None)
@given(pairs())
def test_streaming_equals_all_at_once(pair):
    sizes, a, r = pair
    result = gathered(a, r, sizes)
    assert result.relative_rms == pytest.approx(agreement.relative_rms(a, r), rel=1e-8)
    assert result.max_error == pytest.approx(np.abs(a - r).max() / np.ptp(r), rel=1e-8)
    assert result.cosine == pytest.approx(cosine(a, r), abs=1e-12)
    assert result.top1_agreement == (a.argmax(1) == r.argmax(1)).mean()


@settings(max_examples=50, deadline=None)
@given(pairs(), st.integers(-20, 20))
def test_a_common_scale_changes_nothing(pair, power):
    sizes, a, r = pair
    scaled = gathered(a * 2.0**power, r * 2.0**power, sizes)
    plain = gathered(a, r, sizes)
    assert scaled.relative_rms == pytest.approx(plain.relative_rms)
    assert scaled.max_error == pytest.approx(plain.max_error)
    assert scaled.cosine == pytest.approx(plain.cosine)


@settings(max_examples=50, deadline=None)
@given(pairs(), st.floats(-100, 100))
def test_a_common_shift_changes_no_error(pair, shift):
    sizes, a, r = pair
    shift *= r.std()
    shifted = gathered(a + shift, r + shift, sizes)
    plain = gathered(a, r, sizes)
    assert shifted.relative_rms == pytest.approx(plain.relative_rms, rel=1e-6)
    assert shifted.max_error == pytest.approx(plain.max_error, rel=1e-6)


def test_a_small_spread_beside_a_large_mean_is_not_lost():
    random = np.random.RandomState(0)
    r = 1e8 + random.standard_normal((64, 10))
    a = r + 0.5 * random.standard_normal(r.shape)
    assert gathered(a, r, [32, 32]).relative_rms == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3e7, 1e-30])
@pytest.mark.parametrize("sizes", [[3], [1, 1, 1], [2, 1]])
def test_of_a_constant_reference_equal_elements_are_counted(value, sizes):
    reference = np.full((3, 7), value, np.float32)
    other = reference.copy()
    other[0, :3] += 1 + abs(value)
    for actual, share in ((reference.copy(), 1.0), (other, 18 / 21)):
        figures = OutputFigures("logits", classes=False)
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            figures.update(actual[rows], reference[rows])
            start += size
        found = figures.result()
        assert (found.equal_elements, found.relative_rms) == (pytest.approx(share), None)
        assert not figures.tells


def test_nothing_taken_in_is_refused_by_name():
    with pytest.raises(ValueError, match="nothing of logits"):
        OutputFigures("logits", classes=True).result()


def test_equal_arrays_are_equal():
    r = np.random.RandomState(0).standard_normal((4, 3, 2, 2)).astype(np.float32)
    result = gathered(r, r, [3, 1], classes=False)
    assert (result.relative_rms, result.max_error, result.top1_agreement) == (0.0, 0.0, None)
    assert result.cosine == pytest.approx(1.0)


def test_an_artefact_of_zeros_has_no_direction():
    r = np.random.RandomState(0).standard_normal((4, 3))
    assert gathered(np.zeros_like(r), r, [4]).cosine == 0.0


def test_fp16_arrays_are_compared_without_overflow():
    r = np.array([[60000.0, -60000.0]], np.float32)
    result = gathered(-r.astype(np.float16), r, [1])
    assert result.relative_rms == pytest.approx(2.0, rel=1e-3)
    assert result.top1_agreement == 0.0
