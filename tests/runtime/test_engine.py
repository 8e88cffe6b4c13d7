import re
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from conftest import rewrite_manifest
from PIL import Image

import sam_deploy
from sam_deploy.bundle import read_bundle
from sam_deploy.errors import BundleError, InputError
from sam_deploy.exporter import export_recipe
from sam_deploy.synthetic import synthetic_images


@pytest.fixture(scope="module")
def engine(tiny_bundle):
    return sam_deploy.load(tiny_bundle)


@pytest.fixture(scope="module")
def made(tiny_recipe, tmp_path_factory):
    """Exports a tiny recipe with these options and loads it."""
    out = tmp_path_factory.mktemp("made")
    return lambda **options: sam_deploy.load(
        str(export_recipe(tiny_recipe(**options), out=out).bundle)
    )


@pytest.fixture(scope="module")
def images():
    return list(synthetic_images(11))


def normal(*shape, dtype=np.float32):
    return np.random.RandomState(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("batch", range(1, 10))
def test_every_batch_gives_what_its_rows_give(engine, batch):
    x = normal(9, 3, 64, 64)[:batch]
    y = engine(x)
    assert (y.shape, y.dtype) == ((batch, 10), np.float32)
    rows = np.concatenate([engine(row[None]) for row in x])
    np.testing.assert_allclose(y, rows, atol=1e-3 * rows.std())


def test_any_float_array_like_runs(engine):
    x = normal(1, 3, 64, 64)
    expected = engine(x)
    for form in (x.astype(np.float64), x.tolist(), np.asfortranarray(x), x[:, :, ::1]):
        np.testing.assert_array_equal(engine(form), expected)
    assert engine(x.astype(np.float16)).dtype == np.float32
    assert repr(engine) == "<Engine tiny-fp16-64 on onnxruntime CPUExecutionProvider>"


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 3, 64, 32), (1, 64, 64, 3), (0, 3, 64, 64), ()])
def test_another_shape_is_refused_with_both(engine, shape):
    said = f"input input has shape {shape}; expected (batch, 3, 64, 64)"
    with pytest.raises(InputError, match=re.escape(said)):
        engine(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.complex64, bool])
def test_another_dtype_is_refused_with_both(engine, dtype):
    said = f"is {np.dtype(dtype)}; expected float32, preprocessed"
    with pytest.raises(InputError, match=said):
        engine(np.zeros((1, 3, 64, 64), dtype))


@pytest.mark.parametrize("x", [None, "cat.jpg", {}, [[1.0], [1.0, 2.0]]])
def test_what_is_no_array_is_refused(engine, x):
    with pytest.raises(InputError, match=r"has shape|cannot be made an array"):
        engine(x)


def test_classify_is_the_softmax_of_the_logits(engine, images):
    found = engine.classify(images, top=10)
    logits = engine(engine.manifest.preprocessing.batch(images)).astype(np.float64)
    for predictions, row in zip(found, logits, strict=True):
        assert sum(p.score for p in predictions) == pytest.approx(1.0)
        assert [p.score for p in predictions] == sorted(
            (p.score for p in predictions), reverse=True
        )
        expected = np.exp(row) / np.exp(row).sum()
        for index, name, score in predictions:
            assert name == f"class {index}"
            assert score == pytest.approx(expected[index], abs=1e-3)


def test_classify_takes_images_and_paths_alone_or_listed(engine, images, tmp_path):
    path = tmp_path / "image.png"
    images[0].save(path)
    (expected,) = engine.classify(images[0], top=3)
    for form in (path, str(path), [path], (image for image in [images[0]])):
        assert engine.classify(form, top=3) == [expected]
    assert engine.classify([]) == []
    assert engine.classify([images[1].convert("L"), str(path)], top=3)[1] == expected


def test_top(engine, images):
    assert [len(engine.classify(images[0], top)[0]) for top in (1, 5, 99)] == [1, 5, 10]
    with pytest.raises(InputError, match="top is 0; expected 1 or more"):
        engine.classify(images[0], top=0)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.uint8), b"bytes", 3, None])
def test_classify_refuses_what_is_no_image(engine, image):
    with pytest.raises(InputError, match="classify takes PIL images and paths, not"):
        engine.classify([image])


def test_classify_names_the_file_that_is_no_image(engine, tmp_path):
    (tmp_path / "not.jpg").write_text("no")
    for name in ("gone.jpg", "not.jpg"):
        with pytest.raises(InputError, match=name):
            engine.classify(["gone.jpg" if name == "gone.jpg" else tmp_path / name])


@pytest.mark.export
def test_a_fixed_batch_classifies_any_count(made, engine, images):
    fixed = made(precision="fp16", batch=3)
    for count in (1, 2, 3, 4, 11):
        found, expected = fixed.classify(images[:count]), engine.classify(images[:count])
        assert [[p.class_index for p in row[:1]] for row in found] == [
            [p.class_index for p in row[:1]] for row in expected
        ]
    with pytest.raises(InputError, match=re.escape("expected (3, 3, 64, 64)")):
        fixed(normal(1, 3, 64, 64))


@pytest.mark.export
def test_features_are_a_dict_and_no_classes(made):
    backbone = made(features=True)
    maps = backbone(normal(2, 3, 64, 64))
    assert {name: y.shape for name, y in maps.items()} == {
        "stage1": (2, 8, 16, 16),
        "stage2": (2, 16, 8, 8),
        "stage3": (2, 24, 4, 4),
        "stage4": (2, 32, 2, 2),
    }
    with pytest.raises(InputError, match="is a backbone without classes: call the engine itself"):
        backbone.classify(Image.new("RGB", (9, 9)))


@pytest.mark.export
def test_a_softmax_bundle_gives_probabilities_by_name(made, engine, images, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"sort {i}" for i in range(10)))
    softmax = made(precision="fp16", softmax=True, class_names=str(names))
    assert softmax.manifest.outputs[0].name == "probabilities"
    x = softmax.manifest.preprocessing.batch(images[:2])
    np.testing.assert_allclose(softmax(x).sum(axis=1), 1, rtol=1e-5)
    for found, expected in zip(softmax.classify(images), engine.classify(images), strict=True):
        assert [p.name for p in found] == [f"sort {p.class_index}" for p in expected]
        assert [p.score for p in found] == pytest.approx([p.score for p in expected], rel=1e-2)


def test_a_manifest_of_another_model_is_refused(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    outputs = msgspec.to_builtins(read_bundle(bundle).outputs)
    rewrite_manifest(bundle, outputs=[{**outputs[0], "name": "scores"}])
    with pytest.raises(BundleError, match=r"its manifest declares .*scores"):
        sam_deploy.load(bundle)


def test_without_onnxruntime(tiny_bundle):
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from sam_deploy.cli.inspect import main as inspect\n"
        "from sam_deploy.cli.predict import main as predict\n"
        f"bundle = {str(tiny_bundle)!r}\n"
        "print(inspect([bundle]), predict([bundle, 'x.jpg']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("0 3\n")
    assert done.stderr.startswith("error: onnxruntime is not installed. Run: pip install")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "float16"}, r"float32 \(batch, 10\), its manifest declares logits float16"),
        ({"dims": ["n", 10]}, r"declares logits float32 \(n, 10\)"),
        ({"dims": [4, 10]}, r"declares logits float32 \(4, 10\)"),
        ({"name": "scores"}, r"declares scores float32"),
    ],
)
def test_a_manifest_of_other_outputs_is_refused(tiny_bundle, tmp_path, change, said):
    copied = shutil.copytree(tiny_bundle, tmp_path / "copied")
    (output,) = msgspec.to_builtins(read_bundle(copied).outputs)
    rewrite_manifest(copied, outputs=[{**output, **change}])
    with pytest.raises(BundleError, match=said):
        sam_deploy.load(copied)


def test_a_manifest_of_other_classes_is_refused(tiny_bundle, tmp_path):
    copied = shutil.copytree(tiny_bundle, tmp_path / "copied")
    model = msgspec.to_builtins(read_bundle(copied).model)
    rewrite_manifest(copied, model={**model, "num_classes": 9})
    with pytest.raises(BundleError, match=r"a model of 9 classes has one output, \(batch, 9\)"):
        sam_deploy.load(copied)
