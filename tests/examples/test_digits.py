"""The trained example: its data, its training, and the checkpoint that is shipped."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from outliers import with_outliers
from PIL import Image
from safetensors.torch import load_file

from sam_deploy.images import find_images, open_image
from sam_deploy.models import SMT
from sam_deploy.recipe import read_recipe
from sam_deploy.reference import subject_from_recipe

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RECIPES = sorted((ROOT / "export").glob("smt_digits-*.toml"))
FIRST = [536, 70, 851, 143, 613, 495, 1222, 182, 1583, 895]  # held out


@pytest.fixture(autouse=True, scope="module")
def _examples():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def parts():
    import digits_data

    return digits_data.digits()


@pytest.fixture(scope="module")
def shipped():
    return subject_from_recipe(read_recipe(ROOT / "export" / "smt_digits-fp32-32.toml"))


def run(*argv):
    command = [sys.executable, EXAMPLES / "digits_data.py", *argv]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_recipes_differ_in_precision_only():
    found = {path.stem: read_recipe(path) for path in RECIPES}
    assert [recipe.name for recipe in found.values()] == list(found)
    assert [recipe.precision for recipe in found.values()] == [
        "fp16",
        "fp32",
        "fp8",
        "int8",
        "int8",
    ]
    for recipe in found.values():
        first = msgspec.to_builtins(next(iter(found.values())))
        other = msgspec.to_builtins(recipe)
        differ = {key for key in first if first[key] != other[key]}
        may = {"precision", "tolerances", *(["quantization"] if recipe.is_for_cpu else [])}
        assert differ <= may


def test_the_checkpoint_is_small_and_fits_the_recipe(shipped):
    path = ROOT / "export" / "smt_digits.safetensors"
    assert path.stat().st_size < 5e6
    assert shipped.info.parameters < 1e6
    assert shipped.info.num_classes == 10
    assert shipped.class_names == [str(digit) for digit in range(10)]
    state = load_file(path)
    floats = {name for name in state if not name.endswith("num_batches_tracked")}
    assert {state[name].dtype for name in floats} == {torch.float32}
    model = SMT(shipped.module.architecture, num_classes=10)
    model.load_state_dict(state)


def test_the_checkpoint_knows_the_held_out_digits(shipped, parts):
    import train_digits

    _, held_out = parts
    assert len(held_out.images) >= 550
    inputs = train_digits.tensor(shipped.preprocessing, held_out.images)
    assert inputs.shape[1:] == (3, 32, 32)
    assert train_digits.accuracy(shipped.module, inputs, held_out.labels) >= 0.98


def test_the_split_is_stratified_disjoint_and_the_same_twice(parts):
    import digits_data

    train, held_out = parts
    assert sorted(train.numbers + held_out.numbers) == list(range(1797))
    pixels = [{image.tobytes() for image in part.images} for part in parts]
    assert not pixels[0] & pixels[1]
    counts = [Counter(part.labels) for part in parts]
    for digit in range(10):
        both = counts[0][digit] + counts[1][digit]
        assert counts[1][digit] == both // 3
    assert Counter(held_out.first(30).labels) == dict.fromkeys(range(10), 3)
    again = digits_data.digits()
    assert [part.numbers for part in again] == [part.numbers for part in parts]
    assert held_out.numbers[:10] == FIRST, "another split: the checkpoint may have seen it"


def test_the_folders_are_classes_of_images(tmp_path, parts, shipped):
    import train_digits

    out = tmp_path / "digits"
    done = run(out, "--limit", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 20 images in train, 20 in test\n"
    for folder, part in zip(("train", "test"), parts, strict=True):
        paths = find_images(out / folder)
        expected = {
            f"{label}/{number:04}.png": image
            for number, image, label in zip(*part.first(20), strict=True)
        }
        assert {path.relative_to(out / folder).as_posix() for path in paths} == set(expected)
        assert len({path.parent.name for path in paths}) == 10
        read = shipped.preprocessing.batch(open_image(path) for path in paths)
        given = [expected[path.relative_to(out / folder).as_posix()] for path in paths]
        # serving sees what training saw
        np.testing.assert_array_equal(read, train_digits.tensor(shipped.preprocessing, given))


def test_copies_take_the_place_of_the_held_out_digits(tmp_path, parts):
    import digits_data

    digits_data.write(tmp_path, copies=3, limit=4)
    assert len(find_images(tmp_path / "train")) == 4
    paths = find_images(tmp_path / "test")
    held_out = parts[1].first(4)
    expected = digits_data.augmented(held_out.images, 3, digits_data.COPIES_SEED)
    names = [
        f"{label}/{number:04}-{copy:03}.png"
        for number, label in zip(held_out.numbers, held_out.labels, strict=True)
        for copy in range(3)
    ]
    assert {path.relative_to(tmp_path / "test").as_posix() for path in paths} == set(names)
    for name, image in zip(names, expected, strict=True):
        assert Image.open(tmp_path / "test" / name).tobytes() == image.tobytes()


def test_augmented_copies_are_seeded(parts):
    import digits_data

    images = parts[1].images[:5]
    pixels = [image.tobytes() for image in digits_data.augmented(images, 4, 7)]
    assert pixels == [image.tobytes() for image in digits_data.augmented(images, 4, 7)]
    assert len(set(pixels)) == 20
    assert pixels[:2] == [image.tobytes() for image in digits_data.augmented(images[:1], 2, 7)]
    other = [image.tobytes() for image in digits_data.augmented(images, 4, 8)]
    assert not set(pixels) & set(other)


@pytest.mark.parametrize("taken", ["", "mine"])
def test_a_folder_that_holds_something_is_left_alone(taken, tmp_path, capsys):
    import digits_data

    (tmp_path / "mine").touch()
    out = tmp_path / taken
    assert digits_data.main([str(out)]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: {out} is there and not an empty folder; give a new one.\n"
    assert said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_no_copies_are_refused(tmp_path, capsys):
    import digits_data

    with pytest.raises(SystemExit, match="2"):
        digits_data.main([str(tmp_path / "a"), "--copies", "0"])
    assert "0 is below 1" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("script", ["digits_data", "train_digits"])
def test_without_scikit_learn_it_says_what_to_install(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    main = __import__(script).main
    argv = [str(tmp_path / "a")] if script == "digits_data" else ["--out", str(tmp_path / "a")]
    assert main(argv) == 3
    assert "pip install scikit-learn" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_short_training_is_the_same_twice_and_its_recipe_loads(tmp_path, parts):
    import train_digits

    text = RECIPES[0].read_text().replace("smt_digits.txt", str(ROOT / "export" / "smt_digits.txt"))
    recipe = tmp_path / RECIPES[0].name
    recipe.write_text(text)
    whole = read_recipe(recipe)
    said, files = [], []
    for name in ("smt_digits.safetensors", "again.safetensors"):
        model = train_digits.train(whole, parts[0].first(100), epochs=1, said=said.append)
        train_digits.save(model, tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert len(said) == 2
    assert said[0].startswith("epoch 1/1: loss ")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2 + [".toml"]

    loaded = subject_from_recipe(whole).module
    x = train_digits.tensor(whole.preprocessing, parts[1].images[:4])
    with torch.no_grad():
        found, expected = (in_memory_of_its_own(m)(x) for m in (loaded, model))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_training_learns(parts, shipped):
    import train_digits

    recipe = read_recipe(RECIPES[0])
    few = parts[0].first(200)
    losses = []
    train_digits.train(
        recipe, few, epochs=3, said=lambda line: losses.append(float(line.split()[3].strip(",")))
    )
    assert losses[2] < losses[0] - 0.2


def test_a_save_that_fails_leaves_what_was_there(tmp_path, shipped, monkeypatch):
    import train_digits

    out = tmp_path / "a.safetensors"
    out.write_bytes(b"before")
    monkeypatch.setattr(Path, "replace", _fail)
    with pytest.raises(OSError, match="full"):
        train_digits.save(shipped.module, out)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def in_memory_of_its_own(module, state=None):
    """A copy whose weights lie as PyTorch allocates them: some CPUs' kernels round by alignment."""
    model = SMT(module.architecture, num_classes=10).eval()
    model.load_state_dict(state or module.state_dict())
    return model


def _fail(*_):
    raise OSError("full")


def test_outliers_change_no_bit_of_the_result(parts, shipped):
    import train_digits

    state = shipped.module.state_dict()
    made = with_outliers(state)
    x = train_digits.tensor(shipped.preprocessing, parts[1].images[:50])
    plain, doctored = (in_memory_of_its_own(shipped.module, s) for s in (state, made))
    with torch.no_grad():
        torch.testing.assert_close(doctored(x), plain(x), rtol=0, atol=0)
    name = "block1.0.norm1.weight"
    assert torch.equal(made[name][1:16], state[name][1:16])
    assert torch.equal(made[name][::16], state[name][::16] * 256)
