"""A loaded bundle: call it with an array, or have it classify images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sam_deploy.bundle import MODEL, read_bundle, read_manifest
from sam_deploy.errors import BundleError, InputError
from sam_deploy.images import open_image
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.onnx_runner import CPU, Described, OnnxRunner

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

    def __call__(self, *arrays: npt.ArrayLike, **named: npt.ArrayLike) -> Array | Arrays:
        """Run on an array for each of the manifest's `inputs`, in order or by name.

        Shapes are as declared; a float input takes any float dtype, an integer one any integers
        that it can hold.

        Returns the output, or with several outputs a dict of them by name, as the manifest's
        `outputs` describe them.

        Raises:
            InputError: an input is missing, unknown, or has another shape or kind.
        """
        given = self._by_name(arrays, named)
        inputs = {i.name: _checked(_array(given[i.name]), i) for i in self.manifest.inputs}
        _check_one_batch(inputs, self.manifest.inputs)
        outputs = self._runner.run(inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _by_name(
        self, arrays: Sequence[npt.ArrayLike], named: Mapping[str, npt.ArrayLike]
    ) -> dict[str, npt.ArrayLike]:
        names = [spec.name for spec in self.manifest.inputs]
        given = dict(zip(names, arrays, strict=False))
        twice = given.keys() & named.keys()
        given |= named
        if len(arrays) > len(names) or twice or given.keys() != set(names):
            came = f"{len(arrays)} in order" + (f" and {', '.join(named)}" if named else "")
            raise InputError(f"expected the inputs {', '.join(names)}, once each; got {came}.")
        return given

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
    if read_manifest(folder) != manifest:
        raise BundleError(f"{folder} was replaced while it was loaded. Load it again.")
    for declared, found in (
        (manifest.inputs, runner.inputs),
        (manifest.outputs, runner.outputs),
    ):
        if [(spec.name, spec.dtype, spec.dims) for spec in declared] != found:
            raise BundleError(
                f"{folder / MODEL} has {_listed(found)}, its manifest declares "
                f"{_listed(declared)}. Export it again."
            )
    return Engine(manifest, runner)


def _listed(tensors: Iterable[Described | TensorSpec]) -> str:
    return "; ".join(f"{t.name} {t.dtype} ({', '.join(map(str, t.dims))})" for t in tensors)


def _array(x: npt.ArrayLike) -> Array:
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged; a tensor elsewhere than on CPU
        raise InputError(f"the input cannot be made an array: {error}") from None


def _check_one_batch(inputs: Arrays, specs: Sequence[TensorSpec]) -> None:
    """Sizes that have one name in the manifest are one size."""
    sizes: dict[str, int] = {}
    for spec in specs:
        for size, dim in zip(inputs[spec.name].shape, spec.dims, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise InputError(
                    f"input {spec.name} has {dim} {size}, the inputs before it {sizes[dim]}"
                )


def _checked(x: Array, spec: TensorSpec) -> Array:
    fits = len(x.shape) == len(spec.dims) and all(
        size == wanted if isinstance(wanted, int) else size > 0
        for size, wanted in zip(x.shape, spec.dims, strict=False)
    )
    if not fits:
        expected = ", ".join(map(str, spec.dims))
        raise InputError(f"input {spec.name} has shape {x.shape}; expected ({expected})")
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        fits = x.dtype.kind == "f"
    else:
        fits = np.can_cast(x.dtype, spec.dtype, "safe") or _holds(x, spec.dtype)
    if not fits:
        raise InputError(
            f"input {spec.name} is {x.dtype}; expected {spec.dtype}"
            + (", preprocessed (for images see manifest.preprocessing)" if kind == "f" else "")
        )
    return np.ascontiguousarray(x, dtype=spec.dtype)


def _holds(x: Array, dtype: str) -> bool:
    """Whether the integers of `x` are all within `dtype`'s range."""
    if x.dtype.kind not in "iu" or dtype == "bool" or not x.size:
        return False
    range_ = np.iinfo(dtype)
    return bool(range_.min <= int(x.min()) and int(x.max()) <= range_.max)
