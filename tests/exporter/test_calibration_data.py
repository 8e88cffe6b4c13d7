"""What INT8 is calibrated on: never what parity is judged on, never nothing, never in silence."""

import numpy as np
import pytest
import torch
from PIL import Image

from sam_deploy.errors import InputError
from sam_deploy.exporter import Request
from sam_deploy.exporter.calibration_data import FEW_SAMPLES, data_for
from sam_deploy.parity import sample_hashes
from sam_deploy.progress import Progress
from sam_deploy.reference import subject_from_recipe
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def subject(tiny_recipe):
    return subject_from_recipe(tiny_recipe(precision="int8"))


@pytest.fixture
def data(subject, tiny_recipe, tmp_path):
    """The samples of an export with such a request and recipe."""
    work = tmp_path / "work"
    work.mkdir()

    def make(data=None, batches=None, **recipe):
        asked = tiny_recipe(**{"precision": "int8", **recipe})
        found = data_for(subject, asked, Request(data=data, calibration=batches), work)
        found.check_disjoint(Progress())
        return found

    return make


def folder_of(path, count, suffix="png", start=0):
    path.mkdir(exist_ok=True)
    for number, image in enumerate(synthetic_images(start + count)):
        if number >= start:
            image.save(path / f"{number}.{suffix}")
    return path


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 64, 64)).astype(np.float32)


def rows(samples):
    return np.stack([sample["input"] for _, sample in samples.make(0)])


def test_one_folder_is_divided(data, tmp_path):
    folder = folder_of(tmp_path / "images", 10)
    found, again = data(folder), data(folder)
    calibration, validation = sample_hashes(found.calibration), sample_hashes(found.validation)
    assert (len(calibration), len(validation)) == (7, 3)
    assert not set(calibration) & set(validation)
    assert sample_hashes(again.calibration) == calibration
    assert sample_hashes(again.validation) == validation


def test_names_and_places_do_not_matter(data, tmp_path):
    folder = folder_of(tmp_path / "images", 8)
    first = sample_hashes(data(folder).validation)
    (folder / "deep").mkdir()
    for path in folder.glob("*.png"):
        path.rename(folder / "deep" / f"z{9 - int(path.stem)}.png")
    assert sample_hashes(data(folder).validation) == first


def test_an_image_that_is_there_twice_counts_once(data, tmp_path):
    folder = folder_of(tmp_path / "images", 8)
    folder_of(tmp_path / "images", 8, "bmp")  # the same pixels in another format
    found = data(folder)
    assert found.calibration.count + found.validation.count == 8


def test_the_rows_of_an_npz_are_divided(data, tmp_path):
    x = np.concatenate([images(9), images(2)])  # two of them twice
    np.savez(tmp_path / "x.npz", input=x)
    found = data(tmp_path / "x.npz")
    assert (found.calibration.count, found.validation.count) == (6, 3)
    both = np.concatenate([rows(found.calibration), rows(found.validation)])
    assert {row.tobytes() for row in both} == {row.tobytes() for row in x}


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_to_divide_are_refused(data, tmp_path, count):
    with pytest.raises(InputError, match=rf"holds {count} different samples.*--calibration"):
        data(folder_of(tmp_path / "images", count))


def test_nothing_at_all_is_refused(data):
    with pytest.raises(InputError, match=r"--calibration with a folder.*synthetic to only try"):
        data()


def test_the_same_pixels_in_both_are_refused(data, tmp_path):
    one = folder_of(tmp_path / "a", 4)
    two = folder_of(tmp_path / "b", 3, "bmp", start=4)
    assert data(one).validation.count == 1
    kept = [path.name for path in one.iterdir()]
    Image.open(one / "2.png").save(two / "holiday.tif")
    with pytest.raises(InputError, match=r"1 of the calibration samples are among those"):
        data_in(data, one, two)
    (two / "holiday.tif").unlink()
    assert data_in(data, one, two).calibration.count == 3
    assert [path.name for path in one.iterdir()] == kept


def data_in(data, validation, calibration):
    """With a folder for each, as a recipe names them."""
    return data(validation, calibration=str(calibration))


def test_synthetic_only_where_it_is_asked_for(data):
    found = data(calibration="synthetic")
    assert found.calibration.kind == "synthetic"
    assert not set(sample_hashes(found.calibration)) & set(sample_hashes(found.validation))
    assert any("made-up data" in note for note in found.notes())


def test_few_samples_are_noted(data):
    few, enough = (data(None, [images(n)]).notes() for n in (FEW_SAMPLES - 1, FEW_SAMPLES))
    assert few == [
        f"calibrated on 99 samples; with fewer than {FEW_SAMPLES} the ranges are "
        "guesses, 500 or more are usual."
    ]
    assert enough == []


def test_images_that_cannot_be_read_are_left_out_and_noted(data, tmp_path):
    folder = folder_of(tmp_path / "images", 8)
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    found = data(folder)
    assert len(rows(found.calibration)) + len(rows(found.validation)) == 8
    note = next(note for note in found.notes() if "left out" in note)
    assert "1 of 7 images" in note
    assert "torn.jpg" in note


@pytest.mark.parametrize("alone", [True, False])
def test_when_none_can_be_read_it_is_refused(data, tmp_path, alone):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of 5 images could be read"):
        data(folder) if alone else data_in(data, None, folder)


def test_an_empty_or_missing_folder_is_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, reason in (("empty", "holds no image"), ("missing", "does not exist")):
        for given in ({"data": tmp_path / name}, {"calibration": str(tmp_path / name)}):
            where, recipe = given.get("data"), {k: v for k, v in given.items() if k != "data"}
            with pytest.raises(InputError, match=reason):
                data(where, **recipe)


BAD_NPZ = {
    "names": ({"x": images(4)}, r"holds x; expected an array for each input: input"),
    "shape": (
        {"input": images(4)[:, :, :32]},
        r"has shape \(4, 3, 32, 64\); expected \(samples, 3",
    ),
    "rank": ({"input": images(4)[0]}, r"has shape \(3, 64, 64\)"),
    "dtype": ({"input": images(4).astype(complex)}, r"is complex128; expected float32"),
    "text": ({"input": images(4).astype(str)}, r"is <U32; expected float32"),
    "none": ({"input": images(0)}, "expected the samples in dimension 0"),
    "empty": ({}, "holds nothing"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
@pytest.mark.parametrize("role", ["data", "calibration"])
def test_an_npz_that_does_not_fit_is_refused(data, tmp_path, case, role):
    arrays, reason = BAD_NPZ[case]
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=reason):
        data(path) if role == "data" else data_in(data, None, path)


def batches():
    yield images(2)
    yield images(3, 1)


FORMS = {
    "generator": batches,
    "arrays": lambda: list(batches()),
    "tensors": lambda: [torch.from_numpy(x) for x in batches()],
    "with gradients": lambda: [torch.from_numpy(x).requires_grad_() for x in batches()],
    "doubles": lambda: [x.astype(np.float64) for x in batches()],
    "labels beside": lambda: [(torch.from_numpy(x), torch.zeros(len(x))) for x in batches()],
    "dicts": lambda: ({"input": x, "label": 3} for x in batches()),
    "loader": lambda: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(
            torch.from_numpy(np.concatenate(list(batches()))), torch.zeros(5)
        ),
        batch_size=2,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_iterable_from_python(data, form):
    samples = data(None, FORMS[form]()).calibration
    for _ in range(2):  # read once, used as often as needed
        np.testing.assert_array_equal(rows(samples), np.concatenate(list(batches())))
    assert (samples.kind, samples.count) == ("iterable", 5)


def test_bfloat16_tensors(data):
    given = torch.from_numpy(images(2)).bfloat16()
    np.testing.assert_array_equal(rows(data(None, [given]).calibration), given.float().numpy())


BAD = {
    "empty": ([], "iterable is empty"),
    "no rows": ([images(0)], "iterable is empty"),
    "shape": ([images(2), images(2)[..., :5]], r"batch 1 of .* has shape \(2, 3, 64, 5\)"),
    "one image": (list(images(2)), r"batch 0 .* has shape \(3, 64, 64\); expected \(batch, 3"),
    "one image alone": (images(2)[0], r"has shape \(3, 64, 64\)"),
    "other name": ([{"x": images(2)}], "has nothing; expected an array for each input: input"),
    "empty tuple": ([()], "has nothing"),
    "text": (["image.png"], r"has shape \(\)"),
    "none": ([None], r"has shape \(\)"),
    "complex": ([images(2).astype(complex)], "is complex128; expected float32"),
    "ragged": ([([[1], [2, 3]],)], "is no array"),
    "a number": (5, "got a int to calibrate on; expected an iterable of batches"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_iterable_that_does_not_fit_is_refused(data, case):
    given, reason = BAD[case]
    with pytest.raises(InputError, match=reason):
        data(None, given)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_floats_are_not_calibrated(tiny_recipe, precision):
    with pytest.raises(InputError, match=f"calibration belongs to .*not '{precision}'"):
        Request(calibration=[images(2)]).check(tiny_recipe(precision=precision))
    with pytest.raises(InputError, match="quantization and calibration belong to"):
        tiny_recipe(precision=precision, calibration="synthetic")
