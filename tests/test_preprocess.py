import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sam_deploy.errors import InputError
from sam_deploy.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

GOLDEN = Path(__file__).parent / "golden"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
sides = st.integers(1, 60)


def noise(width, height):
    pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "how", "image"),
    [(224, "crop", "123x321"), (224, "crop", "500x375"), (384, "nocrop", "500x375")],
)
def test_agrees_with_torchvision(size, how, image):
    expected = np.load(GOLDEN / f"preprocess_{size}_{how}_{image}.npz")["every_fourth"]
    with Image.open(GOLDEN / f"image_{image}.png") as opened:
        array = Preprocessing.for_size(size, size).apply(opened)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array[:, ::4, ::4], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "resize"),
    [
        (224, 224, 256),
        (32, 32, 36),
        (383, 383, 437),
        (384, 384, None),
        (512, 512, None),
        (128, 160, None),
        (224, 256, None),
    ],
)
def test_for_size_follows_the_convention(height, width, resize):
    found = Preprocessing.for_size(height, width)
    assert found == Preprocessing(size_px=(height, width), resize_px=resize)
    assert (found.interpolation, found.channels) == ("bicubic", "RGB")
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("size", [(0, 224), (224, -1)])
def test_for_size_refuses_sizes_below_one(size):
    with pytest.raises(InputError, match="at least 1 px"):
        Preprocessing.for_size(*size)


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, out_height=sides, out_width=sides)
def test_any_size_gives_the_asked_shape(width, height, out_height, out_width):
    array = Preprocessing.for_size(out_height, out_width).apply(noise(width, height))
    assert array.shape == (3, out_height, out_width)
    assert np.isfinite(array).all()


@settings(max_examples=40, deadline=None)
@given(width=sides, height=sides, data=st.data())
def test_crop_offsets_round_half_to_even(width, height, data):
    short = min(width, height)
    size = data.draw(st.integers(1, short))
    image = noise(width, height)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = np.asarray(image)[top : top + size, left : left + size].transpose(2, 0, 1) / 255
    array = Preprocessing(size_px=(size, size), resize_px=short, **PLAIN).apply(image)
    np.testing.assert_allclose(array, expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_one_colour_stays_that_colour(interpolation):
    image = Image.new("RGB", (37, 91), (10, 100, 200))
    preprocessing = Preprocessing(size_px=(20, 20), resize_px=24, interpolation=interpolation)
    expected = (np.array([10, 100, 200]) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    array = preprocessing.apply(image)
    np.testing.assert_allclose(array, np.broadcast_to(expected[:, None, None], (3, 20, 20)), 1e-5)


def test_bgr_is_rgb_reversed_after_normalising():
    image = noise(30, 20)
    rgb = Preprocessing(size_px=(16, 16))
    bgr = msgspec.structs.replace(rgb, channels="BGR")
    np.testing.assert_array_equal(bgr.apply(image), rgb.apply(image)[::-1])
    assert bgr.apply(image).flags.c_contiguous


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to view
    noise(40, 20).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        array = Preprocessing(size_px=(20, 40)).apply(turned)
    np.testing.assert_array_equal(array, Preprocessing(size_px=(20, 40)).apply(noise(40, 20)))


def test_batch_stacks_images_of_different_size_and_mode():
    preprocessing = Preprocessing.for_size(32, 32)
    images = [noise(50, 40), noise(20, 90).convert("L"), noise(33, 33).convert("CMYK")]
    batch = preprocessing.batch(images)
    assert batch.shape == (3, 3, 32, 32)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[1], preprocessing.apply(images[1]))


def test_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="at least one"):
        Preprocessing.for_size(32, 32).batch([])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_narrow_images_work(size):
    assert Preprocessing.for_size(224, 224).apply(noise(*size)).shape == (3, 224, 224)


def test_images_too_narrow_for_memory_are_refused_before_resizing():
    with pytest.raises(InputError, match=r"1x100000 px is too narrow: .* 256x25600000 px"):
        Preprocessing.for_size(224, 224).apply(Image.new("RGB", (1, 100_000)))
    straight = Preprocessing.for_size(384, 384).apply(Image.new("RGB", (1, 100_000)))
    assert straight.shape == (3, 384, 384)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size_px": (0, 5)}, "size_px"),
        ({"size_px": (5, 5), "resize_px": 4}, "resize_px = 4 is too small"),
        ({"size_px": (5, 5), "std": (1.0, 0.0, 1.0)}, "std"),
        ({"size_px": (5, 5), "std": (1.0, float("inf"), 1.0)}, "std"),
        ({"size_px": (5, 5), "mean": (float("nan"), 0.0, 0.0)}, "mean"),
    ],
)
def test_impossible_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"std": [1, 1]}, {"std": [1, 1, -1]}, {"interpolation": "bicubc"}, {"crop": 1}, {}],
)
def test_decoding_refuses_what_does_not_fit(wrong):
    given_ = {"size_px": [8, 8], **wrong} if wrong else {}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(given_), type=Preprocessing)


def test_round_trips_through_json():
    preprocessing = Preprocessing.for_size(224, 224)
    encoded = msgspec.json.encode(preprocessing)
    assert msgspec.json.decode(encoded, type=Preprocessing) == preprocessing


def test_importing_does_not_import_pil():
    script = "import sys, sam_deploy.preprocess; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=GOLDEN.parents[1])
