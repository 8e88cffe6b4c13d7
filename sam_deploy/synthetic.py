"""Images made up where none are given, the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image


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
