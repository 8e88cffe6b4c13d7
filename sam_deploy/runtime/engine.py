"""A loaded bundle: call it with an array, or have it classify images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sam_deploy.bundle import MODEL, read_bundle
from sam_deploy.errors import BundleError, InputError
from sam_deploy.images import open_image
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.runtime.onnx_runner import CPU, FloatArray, OnnxRunner

if TYPE_CHECKING:
    from PIL.Image import Image

_CLASSIFY_BATCH = 8


class Prediction(NamedTuple):
    """One class for one image; `score` is its softmax probability."""

    class_index: int
    name: str
    score: float


class Engine:
    """A bundle that runs. `manifest` says all there is to know of it."""

    def __init__(self, manifest: Manifest, runner: OnnxRunner) -> None:
        self.manifest = manifest
        self._runner = runner

    def __repr__(self) -> str:
        return f"<Engine {self.manifest.name} on {self._runner.backend}>"

    def __call__(self, x: npt.ArrayLike) -> FloatArray | dict[str, FloatArray]:
        """Run on `x`, an array of the input's shape and any float dtype.

        Returns the output, or with several outputs a dict of them by name, as the manifest's
        `outputs` describe them.

        Raises:
            InputError: another shape or not a float array.
        """
        spec = self.manifest.inputs[0]
        array = _checked(_array(x), spec)
        outputs = self._runner.run({spec.name: array})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def classify(
        self, images: Image | str | Path | Iterable[Image | str | Path], top: int = 5
    ) -> list[list[Prediction]]:
        """The `top` most likely classes of each image (a PIL image or a path), best first.

        Images go through the recorded preprocessing, a few at a time.

        Raises:
            InputError: the bundle is no classifier, an image cannot be read or is neither path
                nor PIL image, or `top` is below 1.
        """
        from PIL.Image import Image as PilImage

        if self.manifest.model.kind != "classifier" or not self.manifest.model.num_classes:
            raise InputError(
                f"{self.manifest.name} is a {self.manifest.model.kind} without classes: "
                "call the engine itself."
            )
        if top < 1:
            raise InputError(f"top is {top}; expected 1 or more")
        listed = [images] if isinstance(images, PilImage | str | Path) else list(images)
        for image in listed:
            if not isinstance(image, PilImage | str | Path):
                raise InputError(
                    f"classify takes PIL images and paths, not {type(image).__name__}; "
                    "call the engine itself on arrays."
                )
        predictions: list[list[Prediction]] = []
        size = self._fixed_batch or _CLASSIFY_BATCH
        for start in range(0, len(listed), size):
            predictions += self._classify(listed[start : start + size], top)
        return predictions

    @property
    def _fixed_batch(self) -> int | None:
        batch = self.manifest.inputs[0].dims[0]
        return batch if isinstance(batch, int) else None

    def _classify(self, images: Sequence[Image | str | Path], top: int) -> list[list[Prediction]]:
        preprocessing = self.manifest.preprocessing
        assert preprocessing is not None
        opened = [open_image(Path(i)) if isinstance(i, str | Path) else i for i in images]
        x = preprocessing.batch(opened)
        if self._fixed_batch:  # fill up with copies; their results are dropped
            x = np.resize(x, (self._fixed_batch, *x.shape[1:]))
        outputs = self(x)
        assert isinstance(outputs, np.ndarray)
        scores = outputs[: len(images)].astype(np.float64)
        if not self.manifest.recipe.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        return [
            [self._prediction(row, i) for i in np.argsort(-row, kind="stable")[:top]]
            for row in scores
        ]

    def _prediction(self, row: npt.NDArray[np.float64], index: Any) -> Prediction:
        names = self.manifest.class_names
        name = names[index] if names else f"class {index}"
        return Prediction(int(index), name, float(row[index]))


def load(path: str | Path, providers: Sequence[str] = (CPU,)) -> Engine:
    """Load the bundle in the folder `path`; every file is verified first.

    `providers` are ONNX Runtime's, the first of which must start: nothing falls back in silence.

    Raises:
        BundleError: not a bundle, damaged, or of a newer schema.
        MachineError: onnxruntime is not installed, or the first provider does not start.
    """
    folder = Path(path)
    manifest = read_bundle(folder)
    runner = OnnxRunner(folder / MODEL, providers)
    declared = [[tensor.name for tensor in side] for side in (manifest.inputs, manifest.outputs)]
    found = [runner.input_names, runner.output_names]
    if declared != found:
        raise BundleError(
            f"{folder / MODEL} has the inputs and outputs {found}, its manifest declares "
            f"{declared}. Export it again."
        )
    return Engine(manifest, runner)


def _array(x: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; a tensor elsewhere than on CPU
        raise InputError(f"the input cannot be made an array: {error}") from None


def _checked(x: npt.NDArray[Any], spec: TensorSpec) -> FloatArray:
    fits = len(x.shape) == len(spec.dims) and all(
        size == wanted if isinstance(wanted, int) else size > 0
        for size, wanted in zip(x.shape, spec.dims, strict=False)
    )
    if not fits:
        expected = ", ".join(map(str, spec.dims))
        raise InputError(f"input {spec.name} has shape {x.shape}; expected ({expected})")
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(
            f"input {spec.name} is {x.dtype}; expected {spec.dtype}, preprocessed "
            "(for images use classify, or manifest.preprocessing)"
        )
    return np.ascontiguousarray(x, dtype=spec.dtype)
