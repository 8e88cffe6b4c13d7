"""Images that were decoded and cut to size elsewhere: uint8 pixels to a model's input."""

from __future__ import annotations

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.preprocess import Preprocessing
from sam_deploy.runner import Array


def is_pixels(x: Array) -> bool:
    """Whether `x` is of images as decoders give them: uint8 (B, H, W, 3)."""
    return x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] == 3


def from_pixels(x: Array, preprocessing: Preprocessing) -> Array:
    """float32 (B, 3, H, W), normalised, of RGB uint8 (B, H, W, 3) at the model's size already.

    Raises:
        InputError: another size: to resize is left to `classify`, or to `preprocessing.apply`.
    """
    height, width = preprocessing.size_px
    if x.shape[1:3] != (height, width):
        raise InputError(
            f"images of {x.shape[1]}x{x.shape[2]} px; expected {height}x{width} px. Resize them "
            "as manifest.preprocessing says, or give the images themselves to classify."
        )
    mean = np.array(preprocessing.mean, np.float32)
    std = np.array(preprocessing.std, np.float32)
    scaled = x.astype(np.float32) / np.float32(255)
    pixels = (scaled - mean) / std
    if preprocessing.channels == "BGR":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
