"""Images to feed a model: found in a folder, opened as RGB, or made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")


def find_images(folder: Path) -> list[Path]:
    """Every image file below `folder`, by suffix in any case, sorted; hidden files are left out.

    Raises:
        InputError: `folder` is missing, is not a folder, or holds no image.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {problem}; give a folder of images.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise InputError(f"{folder} holds no image; looked for {', '.join(SUFFIXES)}.")
    return found


def open_image(path: Path) -> Image:
    """The image in `path`, in RGB and fully loaded; of several frames the first.

    EXIF orientation is not applied, as it was not in training.

    Raises:
        InputError: naming the file: missing, not an image, damaged, truncated, or so large that
            PIL takes it for a decompression bomb.
    """
    from PIL import Image

    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {problem}; give an image file.")
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    # PIL's decoders raise nearly anything on a damaged file: SyntaxError, struct.error, IndexError
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as an image: {error or type(error).__name__}. "
            "Replace it or leave it out."
        ) from error


def to_rgb(image: Image) -> Image:
    """`image` in RGB, 8 bits a channel, as the training data was read: transparency is dropped.

    16-bit greys are scaled to 8 bits, where PIL's own conversion may clip them.

    Raises:
        InputError: an empty image, 32-bit values (their range is unknown), or a colour space that
            PIL cannot convert.
    """
    from PIL import Image

    if 0 in image.size:
        raise InputError(f"an image of {image.width}x{image.height} px is empty.")
    if image.mode in ("I", "F"):
        raise InputError(
            f"an image of 32-bit values (mode {image.mode!r}) has no known range; "
            "save it with 8 or 16 bits a channel."
        )
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))  # 65535 becomes 255
    if image.mode in ("P", "PA", "RGBa", "La"):  # PIL warns of, or lacks, the direct way
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(
            f"an image of mode {image.mode!r} cannot be converted to RGB; save it as RGB."
        ) from error


def synthetic_images(count: int, seed: int = 0) -> Iterator[Image]:
    """`count` made-up images: RGB, 200 to 500 px a side, varied shapes and textures on noise.

    They stand in for photos where none are given. The same on every machine: legacy `RandomState`
    streams, integer arithmetic and PIL's fixed-point enlarging, nothing transcendental. Image i
    depends on `seed` and i only.

    Raises:
        InputError: a negative `count`, or a `seed` outside 0..2**32 - 1.
    """
    if count < 0:
        raise InputError(f"cannot make {count} synthetic images; give 0 or more.")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed} is outside 0..{2**32 - 1}; give one inside.")
    return (_synthetic(np.random.RandomState([seed, index])) for index in range(count))


def _synthetic(random: np.random.RandomState) -> Image:
    """Noise of large blobs with textured ellipses, rectangles, diamonds and triangles in front."""
    width, height = _integers(random, 200, 501, 2)
    scene = _noise(random, (width, height))
    for _ in range(*_integers(random, 3, 10, 1)):
        wide, high, shape, texture = _integers(random, 20, 200, 4)
        left, top = _integers(random, -50, 500, 2)
        filling = (_noise, _checks, _gradient)[texture % 3](random, (wide, high))
        scene.paste(filling, (left % width - 50, top % height - 50), _mask(shape % 4, wide, high))
    return scene


def _mask(shape: int, wide: int, high: int) -> Image:
    """Where a shape that fills its box is; not by `ImageDraw`, whose releases differ."""
    from PIL import Image

    x = abs(np.arange(wide) * 2 + 1 - wide) * high
    y = (np.arange(high)[:, None] * 2 + 1 - high) * wide
    full = wide * high
    inside = (
        x * x + y * y <= full * full,
        (x < full) & (abs(y) < full),
        x + abs(y) <= full,
        2 * x - y <= full,
    )[shape]
    return Image.fromarray(inside.astype(np.uint8) * 255)


def _noise(random: np.random.RandomState, size: tuple[int, int]) -> Image:
    """Value noise: octaves of muted colours, each twice as fine and half as strong (1/f)."""
    from PIL import Image

    total = np.zeros((size[1], size[0], 3), np.int16)
    first = _integers(random, 1, 4, 1)[0]
    for octave in range(5):
        cells = 2 ** (first + octave)
        if cells > min(size):  # PIL rounds enlarging alike in all its releases, shrinking not
            break
        colour = random.randint(0, 256, (cells, cells, 3), dtype=np.uint8)
        grid = colour // 3 + random.randint(0, 171, (cells, cells, 1), dtype=np.uint8)
        blobs = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
        total += (np.asarray(blobs, np.int16) - 128) << (4 - octave)
    return Image.fromarray(np.clip(128 + (total >> 4), 0, 255).astype(np.uint8))


def _gradient(random: np.random.RandomState, size: tuple[int, int]) -> Image:
    """Four random colours in the corners, blended in between."""
    from PIL import Image

    corners = random.randint(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)


def _checks(random: np.random.RandomState, size: tuple[int, int]) -> Image:
    """Two random colours in checks of 2 to 30 px; very wide or high checks are stripes."""
    from PIL import Image

    wide, high = _integers(random, 2, 31, 2)
    colours = random.randint(0, 256, (2, 3), dtype=np.uint8)
    odd = (np.arange(size[1])[:, None] // high + np.arange(size[0]) // wide) % 2
    return Image.fromarray(colours[odd])


def _integers(random: np.random.RandomState, low: int, high: int, count: int) -> list[int]:
    """Integers in low..high - 1; the dtype is named, as the stream depends on it."""
    numbers: list[int] = random.randint(low, high, count, dtype=np.int64).tolist()
    return numbers
