"""Class folders give labels, by name or by order, or are refused: never wrong labels in silence."""

import numpy as np
import pytest
from PIL import Image

from sam_deploy.errors import InputError
from sam_deploy.parity import folder_samples
from sam_deploy.parity.folders import spread
from sam_deploy.preprocess import Preprocessing

PREPROCESSING = Preprocessing.for_size(32, 32)


@pytest.fixture
def images(tmp_path):
    """Makes images in the folders named, two in each."""

    def make(*folders):
        for number, name in enumerate(folders):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            for copy in range(2):
                pixels = np.full((40, 40, 3), 10 * number + copy, np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / f"{copy}.png")
        return tmp_path

    return make


def labels(folder, names=(), classes=3, **options):
    samples = folder_samples(
        "x", folder, PREPROCESSING, class_names=names, num_classes=classes, **options
    )
    return samples.labels


def test_folders_called_as_classes_are(images):
    folder = images("dog", "cat")
    assert labels(folder, ["fish", "cat", "dog"]) == [1, 1, 2, 2]


def test_as_many_folders_as_classes_stand_for_them_in_order(images):
    folder = images("n02", "n01", "n03")
    assert labels(folder) == [0, 0, 1, 1, 2, 2]
    assert labels(folder, ["fish", "cat", "dog"]) == [0, 0, 1, 1, 2, 2]


def test_deeper_folders_belong_to_their_class(images):
    folder = images("dog/2024", "cat", "dog/2025", "fish")
    assert labels(folder, ["fish", "cat", "dog"]) == [1, 1, 2, 2, 2, 2, 0, 0]


def test_images_beside_the_folders_are_no_classes(images):
    assert labels(images("", "cat", "dog", "fish"), required := ["fish", "cat", "dog"]) is None
    assert labels(images(""), required, labels="required to fit") is None


@pytest.mark.parametrize("folders", [("cat", "dog"), ("a", "b", "c", "d"), ("cat", "dgo")])
def test_other_folders_are_refused_where_labels_are_wanted(images, folders):
    folder = images(*folders)
    names = ["fish", "cat", "god"]
    assert labels(folder, names) is None
    assert labels(folder, names, labels="none") is None
    with pytest.raises(InputError, match=r"folders of images, and the model has 3 classes.*--no-l"):
        labels(folder, names, labels="required to fit")


def test_numbers_without_leading_zeros_are_refused(images):
    folder = images(*(str(number) for number in range(12)))
    with pytest.raises(InputError, match="10 comes before 2"):
        labels(folder, classes=12, labels="required to fit")
    names = [str(number) for number in range(12)]
    assert set(labels(folder, names, classes=12)) == set(range(12))


def test_numbers_with_leading_zeros_are_in_order(images):
    folder = images(*(f"{number:02}" for number in range(12)))
    assert labels(folder, classes=12) == [n for n in range(12) for _ in range(2)]


def test_two_classes_of_one_name_are_told_by_order(images):
    folder = images("crane", "heron", "owl")
    assert labels(folder, ["owl", "crane", "crane"]) == [0, 0, 1, 1, 2, 2]


def test_a_limit_takes_of_every_class(images):
    folder = images("a", "b", "c")
    assert labels(folder, limit=3) == [0, 1, 2]
    assert labels(folder, limit=99) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (7, 7), (5, 9), (50_000, 1000), (1, 1)])
def test_spread_rows_are_different_and_in_range(count, limit):
    rows = spread(count, limit)
    assert len(set(rows)) == len(rows) == min(count, limit)
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert rows[-1] < count


def test_labels_go_with_their_images_when_some_cannot_be_read(images):
    folder = images("a", "b", "c")
    (folder / "a" / "1.png").write_bytes(b"no image")
    samples = folder_samples("x", folder, PREPROCESSING, num_classes=3)
    given = [(samples.labels[n], samples.name(n)[-7:]) for n, _ in samples.make(0)]
    assert given == [(0, "a/0.png"), *((c, f"{'abc'[c]}/{i}.png") for c in (1, 2) for i in (0, 1))]
