"""Beside each classifier, a model that takes images as users have them: encoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager

import numpy as np

from sam_deploy.runner import Array
from sam_deploy.serving.datatypes import BYTES, bytes_array
from sam_deploy.serving.decoding import decoded
from sam_deploy.serving.failures import BadRequest, DeadlineExceeded, ServingError
from sam_deploy.serving.message import InferRequest, InferResponse, Tensor
from sam_deploy.serving.model import Model
from sam_deploy.serving.names import SUFFIX
from sam_deploy.serving.servable import Port, selected
from sam_deploy.serving.statistics import Statistics

_TOP = 5
_MOST_IMAGES = 256


class ImageModel:
    """Takes JPEG, PNG and the like for `model`, a classifier.

    Input `image`: BYTES (B) or (B, 1), a file each. Outputs, best class first: `scores` FP32 (B,
    classes), probabilities by class index; `indices` INT64 and `names` BYTES (B, 5), of the best.
    """

    def __init__(self, model: Model, executor: Executor, max_px: int) -> None:
        self._model = model
        self._executor = executor
        self._max_px = max_px
        self.name, self.version = model.name + SUFFIX, model.version
        self.statistics = Statistics()
        classes = model.manifest.model.num_classes
        assert classes is not None
        self._top = min(_TOP, classes)
        self.inputs: Sequence[Port] = [Port("image", BYTES, (-1,))]
        self.outputs: Sequence[Port] = [
            Port("scores", "FP32", (-1, classes)),
            Port("indices", "INT64", (-1, self._top)),
            Port("names", BYTES, (-1, self._top)),
        ]

    @property
    def ready(self) -> bool:
        """Whether the model is."""
        return self._model.ready

    @property
    def max_batch(self) -> int:
        """As the model's."""
        return self._model.max_batch

    @property
    def labels(self) -> Sequence[str]:
        """Class names, or none."""
        return self._model.labels

    @property
    def about(self) -> Mapping[str, str]:
        """What runs the model."""
        return self._model.about

    def using(self) -> AbstractContextManager[None]:
        """A context in which the model is not closed."""
        return self._model.using()

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Answer a request with encoded images.

        Raises:
            ServingError: one is no image or too large, or as the model's.
        """
        begun = time.perf_counter_ns()
        try:
            wanted = selected(request, self.outputs)
            if any(output.classes for output in request.wanted):
                raise BadRequest("classification is for numbers of classes: ask for names instead")
            images = self._images(request.inputs)
            until = time.monotonic() + timeout_s
            x = await self._decoded(images, timeout_s)
            name = self._model.inputs[0].name
            rows = self._model.manifest.inputs[0].dims[0]
            if isinstance(rows, int):  # a fixed batch is filled up, and the results dropped
                x = np.resize(x, (-(-len(x) // rows) * rows, *x.shape[1:]))
            ran = await self._model.run({name: x}, max(until - time.monotonic(), 0.001))
            found = self._answer(next(iter(ran.outputs.values()))[: len(images)])
        except ServingError:
            self.statistics.failed(time.perf_counter_ns() - begun)
            raise
        self.statistics.executed(len(images), ran.compute_ns)
        self.statistics.succeeded(time.perf_counter_ns() - begun, ran.queue_ns, ran.compute_ns)
        outputs = tuple(found[name] for name in wanted)
        return InferResponse(self.name, self.version, request.id, outputs)

    def _images(self, tensors: Sequence[Tensor]) -> list[bytes]:
        if [tensor.name for tensor in tensors] != ["image"]:
            raise BadRequest(f"expected the input image; got {len(tensors)} inputs")
        array = tensors[0].array
        if tensors[0].datatype != BYTES or array.ndim > 2 or array.shape[1:] not in ((), (1,)):
            raise BadRequest(
                f"input image is {tensors[0].datatype} {list(array.shape)}; expected BYTES [-1], "
                "an encoded image each"
            )
        if array.size > _MOST_IMAGES:
            raise BadRequest(f"{array.size} images; at most {_MOST_IMAGES} are taken at once")
        return list(array.flat)

    async def _decoded(self, images: Sequence[bytes], timeout_s: float) -> Array:
        preprocessing = self._model.manifest.preprocessing
        assert preprocessing is not None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                return await loop.run_in_executor(
                    self._executor, decoded, images, preprocessing, self._max_px
                )
        except TimeoutError:
            raise DeadlineExceeded(f"not decoded within {timeout_s:g} s") from None

    def _answer(self, outputs: Array) -> dict[str, Tensor]:
        scores = outputs.astype(np.float64)
        if not self._model.manifest.recipe.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self._top]
        labels = self.labels or [f"class {i}" for i in range(scores.shape[1])]
        names = bytes_array([labels[int(i)].encode() for i in best.flat], best.shape)
        return {
            "scores": Tensor("scores", "FP32", scores.astype(np.float32)),
            "indices": Tensor("indices", "INT64", best.astype(np.int64)),
            "names": Tensor("names", BYTES, names),
        }
