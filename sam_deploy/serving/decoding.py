"""Encoded images to a model's input, with a bomb refused before it is decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import FORMATS
from sam_deploy.preprocess import Preprocessing
from sam_deploy.runner import Array
from sam_deploy.serving.failures import BadRequest, TooLarge


def decoded(images: Sequence[bytes], preprocessing: Preprocessing, max_px: int) -> Array:
    """float32 (B, 3, H, W) of encoded images, preprocessed as the manifest says.

    Raises:
        TooLarge: one has more than `max_px` pixels, as its header says.
        BadRequest: one is no image, damaged, or cannot be preprocessed.
    """
    return np.stack(
        [_one(data, number, preprocessing, max_px) for number, data in enumerate(images)]
    )


def _one(data: bytes, number: int, preprocessing: Preprocessing, max_px: int) -> Array:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit speaks; PIL's would warn
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            if image.width * image.height > max_px:
                raise TooLarge(
                    f"image {number} has {image.width}x{image.height} px; at most {max_px} px in "
                    "all are decoded"
                )
            image.load()
            return preprocessing.apply(image)
    except TooLarge:
        raise
    except InputError as error:
        raise BadRequest(f"image {number}: {error}") from None
    except Image.DecompressionBombError as error:
        raise TooLarge(f"image {number}: {error}") from None
    except Exception as error:  # PIL's decoders raise nearly anything on a damaged file
        kind = type(error).__name__
        raise BadRequest(f"image {number} ({len(data)} bytes) is no image: {kind}") from None
