"""Data, labels and preprocessing that are not what the model was trained with."""

import shutil

import numpy as np
import pytest
from broken import ON_CPU, failures, judged, manifest_of, refused, with_manifest
from PIL import Image

from sam_deploy.cli.parity import main
from sam_deploy.errors import InputError
from sam_deploy.images import find_images
from sam_deploy.synthetic import synthetic_images

pytestmark = pytest.mark.export
pytest_plugins = ["good_bundles"]

NOT_JUDGED = "which the recipe wants, was not judged: the samples have no labels."


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of images: `folder({"cat": 2})`; those under "" lie in it."""

    def make(counts, content=None):
        for name, count in counts.items():
            (tmp_path / name).mkdir(exist_ok=True)
            for number, image in enumerate(synthetic_images(count)):
                path = tmp_path / name / f"{number}.png"
                image.resize((40, 40)).save(path)
                if content is not None:
                    path.write_bytes(content)
        return tmp_path

    return make


def test_the_untouched_one_passes(digits, images):
    result = judged(digits, data=images, limit=60)
    assert (result.passed, result.labelled, result.samples) == (True, True, 60)
    accuracy = result.artefacts[0].parity.accuracy
    assert (accuracy.samples, accuracy.top1_drop) == (60, 0.0)
    assert accuracy.top1 >= 97


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.485, 0.456, 0.406]},
        {"std": [0.229, 0.224, 0.225]},
        {"interpolation": "bilinear"},
        {"channels": "BGR"},
        {"resize_px": 36},
    ],
)
def test_services_are_told_another_preprocessing(digits, change):
    told = {**manifest_of(digits)["preprocessing"], **change}
    reasons = failures(judged(with_manifest(digits, preprocessing=told)))
    assert [reason.partition(":")[0] for reason in reasons] == ["preprocessing"]
    assert reasons[0].startswith("preprocessing: services are told Preprocessing(size_px=(32, 32)")


def test_preprocessing_that_is_wrong_on_both_sides_shows_in_the_accuracy_alone(digits, images):
    wrong = {**manifest_of(digits)["preprocessing"], "mean": [0, 0, 0], "std": [1, 1, 1]}
    bundle = with_manifest(digits, preprocessing=wrong, recipe={"preprocessing": wrong})
    (reason,) = failures(judged(bundle, data=images, limit=60))
    assert reason.startswith(f"{ON_CPU}top-1 accuracy ")
    assert "look at the preprocessing and at which label is which class" in reason

    unlabelled = judged(bundle, data=images, limit=8, labels="none")
    assert unlabelled.passed
    assert any(note.endswith(NOT_JUDGED) for note in unlabelled.notes)


def test_class_names_in_another_order_show_in_the_accuracy_alone(digits, images):
    bundle = with_manifest(digits, class_names=list("1234567890"))
    (reason,) = failures(judged(bundle, data=images, limit=60))
    assert reason.startswith(f"{ON_CPU}top-1 accuracy 0.00 %, at least 97 % (PyTorch has 0.00 %")


def test_class_names_that_were_lost(digits):
    reasons = failures(judged(with_manifest(digits, class_names=[])))
    assert reasons == ["class names: there are none, and the recipe takes them from smt_digits.txt"]


def test_folders_in_another_order_than_the_classes(digits, images, tmp_path):
    for number in range(10):  # called otherwise than the classes: taken in order
        shutil.copytree(images / str(number), tmp_path / f"class {9 - number}")
    (reason,) = failures(judged(digits, data=tmp_path, limit=60))
    assert reason.startswith(f"{ON_CPU}top-1 accuracy ")


def test_labels_of_an_npz_in_another_order(digits, images, tmp_path):
    paths = find_images(images)[::2]
    x = np.stack([np.asarray(Image.open(path), np.float32) for path in paths]) / 127.5 - 1
    labels = np.array([int(path.parent.name) for path in paths])
    data = {"input": np.repeat(x[:, None], 3, axis=1)}
    np.savez(tmp_path / "right.npz", **data, labels=labels)
    np.savez(tmp_path / "wrong.npz", **data, labels=9 - labels)
    assert judged(digits, data=tmp_path / "right.npz", limit=None).passed
    (reason,) = failures(judged(digits, data=tmp_path / "wrong.npz", limit=None))
    assert reason.startswith(f"{ON_CPU}top-1 accuracy ")


def test_arrays_with_the_channels_last_are_refused(digits, tmp_path, capsys):
    path = tmp_path / "nhwc.npz"
    np.savez(path, input=np.zeros((5, 32, 32, 3), np.float32))
    said = refused(capsys, digits, "--data", path)
    assert "has shape (5, 32, 32, 3); expected (samples, 3, 32, 32)" in said


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"input": np.zeros((0, 3, 32, 32), np.float32)}, "expected the samples in dimension 0"),
        ({"input": np.zeros((5, 3, 32, 32), np.uint8)}, "is uint8; expected float32, preprocessed"),
        ({"x": np.zeros((5, 3, 32, 32), np.float32)}, "expected an array for each input: input"),
        ({}, "holds nothing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(digits, tmp_path, capsys, arrays, said):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    assert said in refused(capsys, digits, "--data", path)


def test_no_data_is_no_verdict(digits, folder, tmp_path, capsys):
    assert "holds no image" in refused(capsys, digits, "--data", folder({}))
    assert "does not exist" in refused(capsys, digits, "--data", tmp_path / "gone")
    assert "expected 1 sample or more" in refused(capsys, digits, "--limit", "0")
    unreadable = folder({"": 3}, content=b"no image")
    assert "none of 3 images could be read" in refused(capsys, digits, "--data", unreadable)


@pytest.mark.parametrize("counts", [{"cat": 1, "dog": 1}, {str(n): 1 for n in range(11)}])
def test_class_folders_that_are_no_classes(digits, folder, capsys, counts):
    data = folder(counts)
    said = refused(capsys, digits, "--data", data)
    assert f"holds {len(counts)} folders of images, and the model has 10 classes" in said
    assert main([str(digits), "--data", str(data), "--limit", "2", "--no-labels"]) == 0
    assert NOT_JUDGED in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--top1-accuracy", "--top1-drop", "--top5-drop"])
def test_what_is_asked_of_labels_is_not_left_unjudged(digits, folder, capsys, flag):
    data = folder({"": 1, "0": 1})  # an image beside the class folders: they are no labels
    value = "99" if flag == "--top1-accuracy" else "0"
    said = refused(capsys, digits, "--data", data, flag, value)
    assert "is of labelled samples, and these have no labels" in said


def test_a_single_sample_proves_little_and_it_is_said(digits):
    notes = judged(digits, limit=1).notes
    assert any("an artefact that ignores its input would pass" in note for note in notes)


def test_an_image_that_cannot_be_read_is_said(digits, folder):
    data = folder({"": 3})
    (data / "1.png").write_bytes(b"no image")
    result = judged(digits, data=data, limit=None)
    assert (result.passed, result.samples) == (True, 2)
    assert any(note.startswith("1 of 3 images were left out") for note in result.notes)


def test_a_refusal_is_an_error_in_python_too(digits, tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        judged(digits, data=tmp_path)
