"""Images to feed a model: found in a folder, opened as RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam_deploy.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
# Whatever the suffix says; for others PIL may start a program (Ghostscript, for PostScript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")


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
        with Image.open(path, formats=FORMATS) as image:
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
