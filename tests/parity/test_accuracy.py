"""Top-1, top-5, their drop and its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.parity.accuracy import AccuracyCount, Hits


def counted(actual, reference, labels, size=7):
    count = AccuracyCount()
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        count.update(actual[part], reference[part], labels[part])
    return count


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(6, 12), st.integers(1, 30))
def test_it_is_what_sorting_the_scores_gives(seed, classes, rows):
    random = np.random.RandomState(seed)
    reference = random.standard_normal((rows, classes))
    actual = reference + 0.5 * random.standard_normal((rows, classes))
    labels = random.randint(0, classes, rows)
    found = counted(actual, reference, labels).result(classes)
    for scores, top1, top5 in (
        (actual, found.top1, found.top5),
        (reference, found.reference_top1, found.reference_top5),
    ):
        order = np.argsort(-scores, axis=1)
        assert top1 == pytest.approx(100 * (order[:, 0] == labels).mean())
        assert top5 == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(axis=1).mean())
    assert found.top1_drop == pytest.approx(found.reference_top1 - found.top1)
    assert found.top1_interval[0] <= found.top1_drop <= found.top1_interval[1]


def test_of_equal_scores_the_first_class_comes_first_as_argmax_has_it():
    scores = np.zeros((2, 8))
    found = counted(scores, scores, np.array([0, 1])).result(8)
    assert (found.top1, found.top5) == (50.0, 100.0)


def test_of_five_classes_there_is_no_top_5():
    scores = np.eye(5)
    found = counted(scores, scores, np.arange(5)).result(5)
    assert found.top1 == 100
    assert (found.top5, found.top5_drop, found.top5_interval) == (None, None, None)


def test_nothing_counted_is_no_figure():
    assert AccuracyCount().result(10) is None


def test_the_interval_has_a_width_where_no_pair_differs():
    low, high = Hits(both=600).drop_interval()
    assert low == pytest.approx(-high)
    assert 0.2 < high < 0.5


def test_half_a_point_shows_on_thousands_and_not_on_hundreds():
    low, _ = Hits(both=9_900, reference_only=60, artefact_only=10, neither=30).drop_interval()
    assert low > 0
    low, high = Hits(both=197, reference_only=2, artefact_only=1).drop_interval()
    assert low < 0 < 0.5 < high


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.005, 0.005), (0.1, 0.0)])
def test_the_interval_holds_the_true_drop_about_95_times_in_100(lost, won):
    random = np.random.RandomState(0)
    drop, held = 100 * (lost - won), 0
    for both, ref, art, rest in random.multinomial(800, [0.8, lost, won, 0.2 - lost - won], 2000):
        low, high = Hits(
            both=both, reference_only=ref, artefact_only=art, neither=rest
        ).drop_interval()
        held += low <= drop <= high
    assert 0.93 <= held / 2000 <= 0.99


def test_it_goes_on_from_where_it_stopped():
    random = np.random.RandomState(1)
    reference, labels = random.standard_normal((20, 9)), random.randint(0, 9, 20)
    actual = reference + random.standard_normal((20, 9))
    first = counted(actual[:9], reference[:9], labels[:9])
    later = AccuracyCount(first.hits)
    later.update(actual[9:], reference[9:], labels[9:])
    assert later.result(9) == counted(actual, reference, labels).result(9)
