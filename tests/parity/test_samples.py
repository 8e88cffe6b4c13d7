"""Samples come in batches, the same at every call, and are hashed as used."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from sam_deploy.errors import InputError
from sam_deploy.parity import (
    SamplesHash,
    array_samples,
    folder_samples,
    normal_samples,
    synthetic_samples,
)
from sam_deploy.preprocess import Preprocessing

PREPROCESSING = Preprocessing.for_size(64, 64)


@pytest.fixture
def folder(tmp_path):
    random = np.random.RandomState(0)
    for name in ("b.png", "a.png", "sub/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.randint(0, 256, (70, 90, 3), dtype=np.uint8)).save(path)
    return tmp_path


def stacked(samples, size):
    return np.concatenate([batch["x"] for batch in samples.batches(size)])


def sources(folder):
    return [
        normal_samples("x", 3, 4, 5),
        synthetic_samples("x", 3, PREPROCESSING),
        folder_samples("x", folder, PREPROCESSING),
    ]


def test_what_they_are_is_said(folder):
    found = [(samples.kind, samples.count) for samples in sources(folder)]
    assert found == [("seeded normal", 3), ("synthetic", 3), ("folder", 3)]


@pytest.mark.parametrize(("size", "expected"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (8, [3])])
def test_batches_are_full_but_for_the_last(size, expected):
    batches = [batch["x"] for batch in normal_samples("x", 3, 4, 5).batches(size)]
    assert [len(batch) for batch in batches] == expected
    assert all(batch.shape[1:] == (4, 5) and batch.dtype == np.float32 for batch in batches)


def test_every_iteration_gives_the_same_whatever_the_batch(folder):
    for samples in sources(folder):
        whole, again = stacked(samples, 3), stacked(samples, 2)
        np.testing.assert_array_equal(whole, again)
        assert len(whole) == samples.count
        assert len({row.tobytes() for row in whole}) == samples.count


def test_images_go_through_the_preprocessing_in_order(folder):
    (batch,) = folder_samples("x", folder, PREPROCESSING).batches(3)
    for row, name in zip(batch["x"], ("a.png", "b.png", "sub/c.png"), strict=True):
        np.testing.assert_array_equal(row, PREPROCESSING.apply(Image.open(folder / name)))


def test_no_samples_are_no_batches():
    assert list(normal_samples("x", 0, 4).batches(2)) == []


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="no image"):
        folder_samples("x", tmp_path, PREPROCESSING)


def test_the_hash_is_of_the_values_not_of_the_batches():
    samples = normal_samples("x", 5, 4, 5)
    hashes = set()
    for size in (1, 2, 5):
        used = SamplesHash()
        for batch in samples.batches(size):
            used.update(batch)
        hashes.add(used.hexdigest())
    chained = b""
    for row in stacked(samples, 5):
        chained = hashlib.sha256(chained + row.tobytes()).digest()
    assert hashes == {chained.hex()}


def test_the_hash_sees_a_changed_and_a_strided_value():
    whole = stacked(normal_samples("x", 5, 4, 5), 5)
    plain, strided, changed = SamplesHash(), SamplesHash(), SamplesHash()
    plain.update({"x": whole})
    strided.update({"x": np.asfortranarray(whole)})
    whole[4, 3, 2] = np.nextafter(whole[4, 3, 2], np.float32(9))
    changed.update({"x": whole})
    assert plain.hexdigest() == strided.hexdigest() != changed.hexdigest()


def test_images_that_cannot_be_read_are_left_out_and_named(folder):
    (folder / "b.png").write_bytes(b"no image")
    samples = folder_samples("x", folder, PREPROCESSING)
    assert stacked(samples, 2).shape[0] == 2
    assert samples.count == 3
    ((path, reason),) = samples.unreadable.items()
    assert path == folder / "b.png"
    assert "b.png cannot be read as an image" in reason
    stacked(samples, 2)
    assert len(samples.unreadable) == 1, "not counted again"


def test_no_image_that_can_be_read_is_an_error(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 3 images could be read; of the first: .*a\.png"):
        list(folder_samples("x", folder, PREPROCESSING).batches(2))


def test_arrays_are_given_row_by_row():
    arrays = {"x": np.arange(12.0).reshape(3, 4), "mask": np.eye(3, dtype=bool)}
    first, last = array_samples("npz", arrays).batches(2)
    np.testing.assert_array_equal(np.concatenate([first["x"], last["x"]]), arrays["x"])
    np.testing.assert_array_equal(last["mask"], arrays["mask"][2:])


@pytest.mark.parametrize(
    "arrays",
    [{}, {"x": np.zeros((0, 2))}, {"x": np.zeros(())}, {"x": np.zeros(2), "y": np.zeros(3)}],
)
def test_arrays_without_common_rows_are_refused(arrays):
    with pytest.raises(InputError, match="samples in dimension 0"):
        array_samples("npz", arrays)


def test_the_hash_is_of_every_input():
    hashes = set()
    for y in (0.0, 1.0):
        used = SamplesHash()
        used.update({"x": np.ones((2, 3)), "y": np.full((2, 1), y)})
        hashes.add(used.hexdigest())
    assert len(hashes) == 2
