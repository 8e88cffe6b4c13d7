"""An .npz of samples is read row by row, whatever it holds."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.errors import InputError
from sam_deploy.parity.npz import npz_samples

EXAMPLES = {"x": np.zeros((1, 3, 4), np.float32), "mask": np.zeros((1, 2), bool)}


def arrays(rows, seed=0):
    random = np.random.RandomState(seed)
    return {
        "x": random.standard_normal((rows, 3, 4)).astype(np.float32),
        "mask": random.rand(rows, 2) > 0.5,
    }


def written(path, compressed=False, **given):
    (np.savez_compressed if compressed else np.savez)(path, **given)
    return path


def stacked(samples, name):
    return np.stack([sample[name] for _, sample in samples.make(0)])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.booleans(), st.integers(0, 12))
def test_every_row_of_every_input_from_any_start(tmp_path_factory, rows, compressed, start):
    given_ = arrays(rows)
    path = written(tmp_path_factory.mktemp("npz") / "a.npz", compressed, **given_)
    samples = npz_samples(path, EXAMPLES)
    assert (samples.kind, samples.count, samples.labels) == ("npz", rows, None)
    found = list(samples.make(start))
    assert [number for number, _ in found] == list(range(start, rows))
    for number, sample in found:
        for name, array in given_.items():
            np.testing.assert_array_equal(sample[name], array[number])
            assert sample[name].dtype == EXAMPLES[name].dtype


def test_chosen_rows_alone(tmp_path):
    given_ = arrays(7)
    path = written(tmp_path / "a.npz", **given_, labels=np.arange(7))
    samples = npz_samples(path, EXAMPLES, num_classes=7, rows=[1, 2, 6])
    np.testing.assert_array_equal(stacked(samples, "x"), given_["x"][[1, 2, 6]])
    assert samples.labels == [1, 2, 6]
    assert [number for number, _ in samples.make(1)] == [1, 2]
    assert samples.name(2) == "row 6"


def test_another_width_of_float_becomes_the_inputs(tmp_path):
    given_ = arrays(3)
    path = written(tmp_path / "a.npz", x=given_["x"].astype(np.float64), mask=given_["mask"])
    np.testing.assert_array_equal(stacked(npz_samples(path, EXAMPLES), "x"), given_["x"])


def test_an_array_stored_by_columns_is_read_too(tmp_path):
    given_ = arrays(5)
    path = written(tmp_path / "a.npz", x=np.asfortranarray(given_["x"]), mask=given_["mask"])
    np.testing.assert_array_equal(stacked(npz_samples(path, EXAMPLES), "x"), given_["x"])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(4), "expected 5 class numbers"),
        (np.zeros(5), "expected 5 class numbers"),
        (np.zeros((5, 1), int), "expected 5 class numbers"),
        (np.array([0, 1, 2, 3, 10]), "holds 0 to 10; expected class numbers from 0 to 9"),
        (np.array([0, 1, 2, 3, -1]), "holds -1 to 3"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, said):
    path = written(tmp_path / "a.npz", **arrays(5), labels=labels)
    with pytest.raises(InputError, match=said):
        npz_samples(path, EXAMPLES, num_classes=10)


def test_labels_of_a_network_without_classes_are_an_array_too_many(tmp_path):
    path = written(tmp_path / "a.npz", **arrays(5), labels=np.zeros(5, int))
    with pytest.raises(InputError, match="holds labels, mask, x; expected an array for each input"):
        npz_samples(path, EXAMPLES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((5, 4, 3), np.float32)}, r"x in .*a\.npz has shape \(5, 4, 3\); expected"),
        ({"x": np.zeros((5, 3, 4), np.uint8)}, "is uint8; expected float32, preprocessed"),
        ({"x": np.zeros((4, 3, 4), np.float32)}, "samples in dimension 0"),
        ({"x": np.zeros((), np.float32)}, "has shape"),
        ({"x": np.array([object()])}, "Python objects"),
        ({"y": np.zeros(5)}, "expected an array for each input"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, said):
    path = written(tmp_path / "a.npz", **{**arrays(5), **change})
    with pytest.raises(InputError, match=said):
        npz_samples(path, EXAMPLES)


def test_no_rows_are_refused(tmp_path):
    path = written(tmp_path / "a.npz", **{name: a[:0] for name, a in arrays(1).items()})
    with pytest.raises(InputError, match="samples in dimension 0"):
        npz_samples(path, EXAMPLES)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_or_changed_is_an_error_not_other_samples(tmp_path, compressed):
    path = written(tmp_path / "a.npz", compressed, **arrays(200))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PK\x03\x04", b"no archive at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
            npz_samples(path, EXAMPLES)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        stacked(npz_samples(path, EXAMPLES), "x")


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (1000, 3, 4)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", file.getvalue() + b"\0" * 48)
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        stacked(npz_samples(path, {"x": EXAMPLES["x"]}), "x")


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        npz_samples(tmp_path / "none.npz", EXAMPLES)


def test_it_is_never_in_memory_as_a_whole(tmp_path):
    big = np.zeros((4000, 3, 64, 64), np.float32)  # 197 MB
    path = written(tmp_path / "a.npz", compressed=True, x=big)
    del big
    samples = npz_samples(path, {"x": np.zeros((1, 3, 64, 64), np.float32)})
    tracemalloc.start()
    count = sum(1 for _ in samples.make(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < 8e6
