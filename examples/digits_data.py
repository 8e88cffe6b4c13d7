"""scikit-learn's handwritten digits as folders of images, split once and for all.

    python examples/digits_data.py OUT [--copies N] [--limit N]

writes OUT/train/<digit>/<number>.png and OUT/test/<digit>/<number>.png: grey, 8 bits, 32x32 px.
`number` is the digit's place in `sklearn.datasets.load_digits`. Exit codes: 0 done, 2 bad input,
3 this machine lacks something.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 32  # px, of the images; the digits are 8x8
SEED = 0
COPIES_SEED = 1
HELD_OUT = 3  # every third digit is held out
_BRIGHTEST = 16  # of load_digits

# The largest changes that `augmented` makes.
SHIFT = 2.0  # px
TURN = 0.1  # tangent of half the angle: 11 degrees
SCALE = 0.12
SHEAR = 0.12
CONTRAST = (0.6, 1.2)
NOISE = 10  # grey values


class Digits(NamedTuple):
    """Digits: `numbers` are their places in load_digits, `labels` their values 0..9."""

    numbers: list[int]
    images: list[Image.Image]
    labels: list[int]

    def first(self, count: int | None) -> Digits:
        """The first `count` of them, all values alike; all without a count."""
        return Digits(self.numbers[:count], self.images[:count], self.labels[:count])


def digits() -> tuple[Digits, Digits]:
    """The digits to train with and those held out (one in three of every value).

    Images are grey (mode L), 32x32 px, enlarged bicubically. The same on every machine.

    Raises:
        ImportError: scikit-learn is missing.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.tolist()
    grey = np.rint(data.images * (255 / _BRIGHTEST)).astype(np.uint8)

    def taken(numbers: list[int]) -> Digits:
        images = [_enlarged(grey[number]) for number in numbers]
        return Digits(numbers, images, [labels[number] for number in numbers])

    train, test = split(labels)
    return taken(train), taken(test)


def split(labels: Sequence[int], seed: int = SEED) -> tuple[list[int], list[int]]:
    """The places in `labels` to train with and those to hold out, one in three of every value.

    Values take turns in both, so that the start of either holds all of them alike.
    """
    random = np.random.RandomState(seed)
    train: list[tuple[int, int, int]] = []  # turn, value, place
    test: list[tuple[int, int, int]] = []
    for value in sorted(set(labels)):
        places = [place for place, label in enumerate(labels) if label == value]
        shuffled = random.permutation(places).tolist()
        held_out = len(shuffled) // HELD_OUT
        test += [(turn, value, place) for turn, place in enumerate(shuffled[:held_out])]
        train += [(turn, value, place) for turn, place in enumerate(shuffled[held_out:])]
    return [place for *_, place in sorted(train)], [place for *_, place in sorted(test)]


def augmented(images: Sequence[Image.Image], copies: int, seed: int) -> list[Image.Image]:
    """`copies` copies of every image, one image's after another's.

    Each is shifted, turned, scaled and sheared a little, its contrast changed and noise added.
    Copy j of image i depends on that image, `seed`, i and j only, and is the same on every machine
    but for PIL's own rounding.

    Returns:
        Grey images (mode L) of the sizes of those given.
    """
    return [
        _augmented(image, np.random.RandomState([seed, i, j]))
        for i, image in enumerate(images)
        for j in range(copies)
    ]


def write(out: Path, copies: int = 0, limit: int | None = None) -> tuple[int, int]:
    """Write both parts below `out`; with `copies` the held-out part as augmented copies only.

    `limit` is how many digits of each part are taken, at most.

    Returns:
        How many images were written to `train` and to `test`.

    Raises:
        FileExistsError: `out` is a file, or a folder that holds something.
        ImportError: scikit-learn is missing.
        OSError: a file cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there and not an empty folder; give a new one.")
    train, test = (part.first(limit) for part in digits())
    plain = list(_named(train, 0))
    held_out = list(_named(test, copies))
    for part, images in (("train", plain), ("test", held_out)):
        for label, name, image in images:
            path = out / part / str(label) / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    return len(plain), len(held_out)


def _named(part: Digits, copies: int) -> Iterator[tuple[int, str, Image.Image]]:
    """Label, name of the file and image of everything that is written of `part`."""
    changed = iter(augmented(part.images, copies, COPIES_SEED))
    for number, image, label in zip(part.numbers, part.images, part.labels, strict=True):
        if not copies:
            yield label, f"{number:04}", image
        for copy in range(copies):
            yield label, f"{number:04}-{copy:03}", next(changed)


def _enlarged(grey: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _augmented(image: Image.Image, random: np.random.RandomState) -> Image.Image:
    warped = image.convert("L").transform(
        image.size, Image.Transform.AFFINE, _affine(image, random), Image.Resampling.BICUBIC
    )
    grey = np.asarray(warped, np.float64)
    mean = grey.mean()
    noise = random.randint(-NOISE, NOISE + 1, grey.shape) * random.uniform()
    changed = mean + (grey - mean) * random.uniform(*CONTRAST) + noise
    return Image.fromarray(np.clip(np.rint(changed), 0, 255).astype(np.uint8))


def _affine(image: Image.Image, random: np.random.RandomState) -> tuple[float, ...]:
    """The six numbers of PIL's affine transform: where a pixel of the result is taken from."""
    half = random.uniform(-TURN, TURN)
    # Cosine and sine by the half angle's tangent: the same bits on every machine.
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    wide, high = random.uniform(1 - SCALE, 1 + SCALE, 2)
    shear = random.uniform(-SHEAR, SHEAR)
    right, down = random.uniform(-SHIFT, SHIFT, 2)
    a, b = cos * wide, (cos * shear - sin) * high
    d, e = sin * wide, (sin * shear + cos) * high
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    return a, b, x - a * (x + right) - b * (y + down), d, e, y - d * (x + right) - e * (y + down)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description="Write the digits as folders of PNG files.")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    parser.add_argument(
        "--copies",
        type=_count,
        default=0,
        metavar="N",
        help="augmented copies of each held-out one",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="digits of each part, at most")
    args = parser.parse_args(argv)
    try:
        train, test = write(args.out, args.copies, args.limit)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError:
        print("error: scikit-learn is missing: pip install scikit-learn", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 3
    print(f"{args.out}: {train} images in train, {test} in test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
