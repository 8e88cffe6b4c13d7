"""Triton's Python backend: encoded images to a model's input, as the model was trained.

Written into a model repository as it is, and needs numpy and Pillow alone: what a Triton container
has, or gets with `pip install numpy pillow`. Made by sam-deploy, whose `preprocess.py` it repeats;
a test holds the two together, bit for bit.
"""

from __future__ import annotations

import io
import json
import warnings
from typing import Any

import numpy as np
from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_MAX_RESIZED_PX = 2**26


class Refused(Exception):
    """An image that cannot be used; says why."""


class Preprocess:
    """`settings` are the manifest's preprocessing, and `max_image_px` of an encoded image."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def decoded(self, data: bytes) -> Any:
        """float32 (3, H, W) of an encoded image.

        Raises:
            Refused: it is no image, damaged, or larger than is decoded.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # our own limit speaks
                image = Image.open(io.BytesIO(data), formats=_FORMATS)
            with image:
                if image.width * image.height > self._settings["max_image_px"]:
                    raise Refused(
                        f"an image of {image.width}x{image.height} px; at most "
                        f"{self._settings['max_image_px']} px in all are decoded"
                    )
                image.load()
                return self.applied(_to_rgb(image))
        except Refused:
            raise
        except Image.DecompressionBombError as error:  # beyond what Pillow itself opens
            raise Refused(str(error)) from None
        except Exception as error:  # Pillow's decoders raise nearly anything
            kind = type(error).__name__
            raise Refused(f"{len(data)} bytes that are no image: {kind}") from None

    def applied(self, image: Any) -> Any:
        """float32 (3, H, W) of an RGB image."""
        mean = np.array(self._settings["mean"], np.float32)
        std = np.array(self._settings["std"], np.float32)
        scaled = np.asarray(self._resized(image), np.float32) / np.float32(255)
        pixels = (scaled - mean) / std
        if self._settings["channels"] == "BGR":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _resized(self, image: Any) -> Any:
        resampling = Image.Resampling[self._settings["interpolation"].upper()]
        height, width = self._settings["size_px"]
        shorter = self._settings["resize_px"]
        if shorter is None:
            return image.resize((width, height), resampling)
        short = min(image.size)
        wide, high = (
            shorter if side == short else int(shorter * side / short) for side in image.size
        )
        if wide * high > _MAX_RESIZED_PX:
            raise Refused(f"an image of {image.width}x{image.height} px is too narrow; crop it")
        left, top = round((wide - width) / 2), round((high - height) / 2)
        resized = image.resize((wide, high), resampling)
        return resized.crop((left, top, left + width, top + height))


def _to_rgb(image: Any) -> Any:
    if 0 in image.size or image.mode in ("I", "F"):
        raise Refused(f"an image of mode {image.mode} and {image.width}x{image.height} px")
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("P", "PA", "RGBa", "La"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGB")


class TritonPythonModel:
    """What the Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the settings from the model's configuration."""
        config = json.loads(args["model_config"])
        settings = config["parameters"]["preprocessing"]["string_value"]
        self._preprocess = Preprocess(json.loads(settings))
        self._output = config["output"][0]["name"]
        half = config["output"][0]["data_type"] == "TYPE_FP16"
        self._dtype = np.float16 if half else np.float32

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: a bad image is nobody else's error."""
        import triton_python_backend_utils as pb_utils

        responses = []
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            try:
                rows = [self._preprocess.decoded(bytes(data)) for data in images.flat]
                x = pb_utils.Tensor(self._output, np.stack(rows).astype(self._dtype))
                responses.append(pb_utils.InferenceResponse([x]))
            except Refused as error:
                failed = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse([], failed))
        return responses
