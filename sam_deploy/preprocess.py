"""From an image to the array that the model was trained on: resize, crop, scale, normalise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRAIGHT_FROM_PX = 384  # square sizes from here on are not cropped
MAX_RESIZED_PX = 2**26  # before the crop: 192 MiB of RGB


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an image becomes the model's input; agrees with torchvision's transforms on PIL images.

    `size_px` is (H, W) of the result. With `resize_px` the shorter side is first resized to it,
    the aspect ratio kept, and the centre cropped; without, the image is resized straight to
    `size_px`. `mean` and `std` are of values in 0..1 and in RGB order, whatever `channels` says:
    that is the order of the result only.
    """

    size_px: tuple[int, int]
    resize_px: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        """Refuse numbers that no image can be preprocessed with.

        Raises:
            ValueError: naming the field (msgspec turns it into a validation error with a path).
        """
        if min(self.size_px) < 1:
            raise ValueError(f"size_px = {self.size_px} must be at least 1 in height and width")
        if self.resize_px is not None and self.resize_px < max(self.size_px):
            raise ValueError(
                f"resize_px = {self.resize_px} is too small to crop size_px = {self.size_px} from; "
                f"it must be at least {max(self.size_px)}, or null to resize without a crop"
            )
        if not all(-10 <= value <= 10 for value in self.mean):
            raise ValueError(f"mean = {self.mean} must be of values in 0..1: between -10 and 10")
        if not all(1e-3 <= value <= 1e3 for value in self.std):
            raise ValueError(
                f"std = {self.std} must be positive, and of values in 0..1: between 0.001 and 1000"
            )

    @classmethod
    def for_size(cls, height: int, width: int) -> Preprocessing:
        """The convention of the official checkpoints, carried over to any size in px.

        Squares below 384 px are cropped out of 256/224 of their size; larger squares and
        rectangles are resized straight.

        Raises:
            InputError: a side below 1 px.
        """
        if min(height, width) < 1:
            raise InputError(f"image size {height}x{width} px: both sides must be at least 1 px.")
        crops = height == width < STRAIGHT_FROM_PX
        return cls(size_px=(height, width), resize_px=int(height * 256 / 224) if crops else None)

    def apply(self, image: Image) -> NDArray[np.float32]:
        """The model's input for one image of any mode and size.

        EXIF orientation is not applied: the training data was read without it (torchvision's
        ImageFolder). Rotate beforehand (`PIL.ImageOps.exif_transpose`) if you want it.

        Returns:
            float32 (3, H, W), normalised, contiguous.

        Raises:
            InputError: an empty image, a mode that cannot be made RGB, or an image so narrow that
                resizing its shorter side would fill the memory.
        """
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        scaled = np.asarray(self._resized(to_rgb(image)), np.float32) / np.float32(255)
        pixels: NDArray[np.float32] = (scaled - mean) / std
        if self.channels == "BGR":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def batch(self, images: Iterable[Image]) -> NDArray[np.float32]:
        """The model's input for several images, which may differ in mode and size.

        Returns:
            float32 (B, 3, H, W).

        Raises:
            InputError: no images at all, or one that `apply` refuses.
        """
        arrays = [self.apply(image) for image in images]
        if not arrays:
            raise InputError("got no images to make a batch of; give at least one.")
        return np.stack(arrays)

    def _resized(self, image: Image) -> Image:
        """`image` (RGB) at `size_px`, cropped where `resize_px` says so."""
        from PIL.Image import Resampling

        resampling = Resampling[self.interpolation.upper()]
        height, width = self.size_px
        if self.resize_px is None:
            return image.resize((width, height), resampling)

        short = min(image.size)
        wide, high = (
            self.resize_px if side == short else int(self.resize_px * side / short)
            for side in image.size
        )
        if wide * high > MAX_RESIZED_PX:
            raise InputError(
                f"an image of {image.width}x{image.height} px is too narrow: with its shorter side "
                f"resized to {self.resize_px} px it would have {wide}x{high} px. Crop it first."
            )
        left, top = round((wide - width) / 2), round((high - height) / 2)
        resized = image.resize((wide, high), resampling)
        return resized.crop((left, top, left + width, top + height))
