"""A loaded bundle: call it with an array, or have it classify images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import open_image
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.plans import BatchProfile
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.chosen import Chosen
from sam_deploy.runtime.classes import Prediction, listed_images, predictions
from sam_deploy.runtime.device_array import DeviceArray
from sam_deploy.runtime.finite import check_finite
from sam_deploy.runtime.gpu import is_on_gpu
from sam_deploy.runtime.inputs import array_of, check_batch, checked
from sam_deploy.runtime.onnx_contexts import OnnxContexts
from sam_deploy.runtime.pixels import from_pixels, is_pixels
from sam_deploy.runtime.splitting import profile_of, run_split
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner

if TYPE_CHECKING:
    from PIL.Image import Image

_CLASSIFY_BATCH = 8


class Engine:
    """A bundle that runs. `manifest` says all there is to know of it, `chosen` what runs it here.

    `runner` is what runs it, unchecked. `profile` are the batches that it takes at once; larger
    ones are split. Threads may share an engine.
    """

    def __init__(
        self,
        manifest: Manifest,
        runner: OnnxContexts | TensorRTRunner,
        chosen: Chosen,
        *,
        profile: BatchProfile | None = None,
        refuse_nan: bool = False,
    ) -> None:
        self.manifest = manifest
        self.chosen = chosen
        self.runner = runner
        self.profile = profile_of(manifest.inputs, profile)
        self._refuse_nan = refuse_nan

    def __repr__(self) -> str:
        return f"<Engine {self.manifest.name} on {self.backend}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """What runs it: "onnxruntime CPUExecutionProvider", "tensorrt 10.16.1.11"."""
        return self.runner.backend

    def close(self) -> None:
        """Free what it holds, once the calls that run are done; a call after that is refused."""
        self.runner.close()

    def warmup(self) -> None:
        """Run once at the ends of the profile and at what it is best at, on zeros: the first calls
        of a service are then as fast as the others.

        Raises:
            MachineError: as a call.
        """
        profile = self.profile
        for size in sorted({profile.min, profile.opt, profile.max} if profile else {1}):
            self.runner.run(
                {
                    spec.name: np.zeros(
                        [size if isinstance(dim, str) else dim for dim in spec.dims], spec.dtype
                    )
                    for spec in self.manifest.inputs
                }
            )

    def __call__(self, *arrays: Any, **named: Any) -> Array | Arrays:
        """Run on an array for each of the manifest's `inputs`, in order or by name.

        Shapes are as declared; a float input takes any float dtype, an integer one any integers
        that it can hold. The input for images also takes them as uint8 (B, H, W, 3), RGB and at the
        model's size. A plan also takes arrays on the GPU (torch's, CuPy's, any with DLPack) without
        a copy, contiguous and in the declared dtype. A batch larger than the engine takes at once
        is split.

        Returns the output, or with several outputs a dict of them by name, as the manifest's
        `outputs` describe them.

        Raises:
            InputError: an input is missing, unknown, or has another shape or kind, the batch is
                below the plan's profile, the engine is closed; with `refuse_nan`, NaN or infinity.
            MachineError: the backend failed: too little memory, mostly.
        """
        outputs = self.run(self._by_name(arrays, named))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """The same by name, for programs: arrays for all inputs in, arrays of all outputs out."""
        given = self._inputs(self._by_name((), inputs))
        if not all(isinstance(x, np.ndarray) for x in given.values()):
            return self.runner.run(given)
        return run_split(self.runner, given, self.manifest.outputs, self.profile)

    def run_on_device(self, *arrays: Any, **named: Any) -> DeviceArray | dict[str, DeviceArray]:
        """The same, and the outputs stay on the GPU; `torch.from_dlpack` takes one as it is.

        Nothing is split.

        Raises:
            InputError: as a call; or the engine does not run a plan.
            MachineError: as a call.
        """
        if not isinstance(self.runner, TensorRTRunner):
            raise InputError(
                f"outputs stay on the GPU with a plan; this engine runs on {self.backend}. "
                'Load it with require="tensorrt" or "tensorrt-rtx", or call it.'
            )
        outputs = self.runner.run_on_device(self._inputs(self._by_name(arrays, named)))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the runner gets: checked arrays, and as they are those on the GPU."""
        specs = self.manifest.inputs
        takes_gpu = isinstance(self.runner, TensorRTRunner)
        inputs = {
            spec.name: given[spec.name]
            if takes_gpu and is_on_gpu(given[spec.name])
            else self._checked(array_of(given[spec.name]), spec)
            for spec in specs
        }
        if all(isinstance(x, np.ndarray) for x in inputs.values()):
            check_batch({name: x.shape for name, x in inputs.items()}, specs, self.profile)
        if self._refuse_nan:
            check_finite(inputs)
        return inputs

    def _checked(self, x: Array, spec: TensorSpec) -> Array:
        preprocessing = self.manifest.preprocessing
        if preprocessing is not None and is_pixels(x) and spec.dtype.startswith("float"):
            x = from_pixels(x, preprocessing)
        fixed = spec.dims[0]
        if isinstance(fixed, int) and x.ndim and len(x) > fixed:  # it will be split
            spec = msgspec.structs.replace(spec, dims=["batch", *spec.dims[1:]])
        return checked(x, spec)

    def _by_name(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
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
        if self.manifest.model.kind != "classifier" or not self.manifest.model.num_classes:
            raise InputError(
                f"{self.manifest.name} is a {self.manifest.model.kind} without classes: "
                "call the engine itself."
            )
        if top < 1:
            raise InputError(f"top is {top}; expected 1 or more")
        listed = listed_images(images)
        found: list[list[Prediction]] = []
        _, size = self._images_a_call
        for start in range(0, len(listed), size):
            found += self._classify(listed[start : start + size], top)
        return found

    @property
    def _images_a_call(self) -> tuple[int, int]:
        """The fewest and the most that are classified at once."""
        if self.profile is None:
            return 1, _CLASSIFY_BATCH
        return self.profile.min, min(max(_CLASSIFY_BATCH, self.profile.min), self.profile.max)

    def _classify(self, images: Sequence[Image | Path], top: int) -> list[list[Prediction]]:
        preprocessing = self.manifest.preprocessing
        assert preprocessing is not None
        opened = [open_image(i) if isinstance(i, Path) else i for i in images]
        x = preprocessing.batch(opened)
        # filled up with copies where the batch is too small; their results are dropped
        least, _ = self._images_a_call
        x = np.resize(x, (max(len(x), least), *x.shape[1:]))
        outputs = self(x)
        assert isinstance(outputs, np.ndarray)
        return predictions(outputs[: len(images)], self.manifest, top)
