"""A loaded bundle: call it with an array, or have it classify images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sam_deploy.errors import InputError
from sam_deploy.images import open_image
from sam_deploy.manifest import Manifest
from sam_deploy.plans import BatchProfile
from sam_deploy.runner import Array, Arrays, Runner
from sam_deploy.runtime.classes import Prediction, listed_images, predictions
from sam_deploy.runtime.device_array import DeviceArray
from sam_deploy.runtime.gpu import is_on_gpu
from sam_deploy.runtime.inputs import array_of, check_batch, checked
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner

if TYPE_CHECKING:
    from PIL.Image import Image

_CLASSIFY_BATCH = 8


class Engine:
    """A bundle that runs. `manifest` says all there is to know of it.

    `runner` is what runs it, unchecked. `passed_over` says why backends that were preferred do not
    run here. An engine on a plan takes the batches of its `profile` alone. Threads may share one.
    """

    def __init__(
        self,
        manifest: Manifest,
        runner: Runner,
        *,
        profile: BatchProfile | None = None,
        passed_over: Mapping[str, str] | None = None,
    ) -> None:
        self.manifest = manifest
        self.passed_over = dict(passed_over or {})
        self.runner = runner
        self._profile = profile

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
        """Free a plan's memory on the GPU, once the calls that run are done; others need not."""
        if isinstance(self.runner, TensorRTRunner):
            self.runner.close()

    def __call__(self, *arrays: Any, **named: Any) -> Array | Arrays:
        """Run on an array for each of the manifest's `inputs`, in order or by name.

        Shapes are as declared; a float input takes any float dtype, an integer one any integers
        that it can hold. A plan also takes arrays on the GPU (torch's, CuPy's, any with DLPack)
        without a copy, contiguous and in the declared dtype.

        Returns the output, or with several outputs a dict of them by name, as the manifest's
        `outputs` describe them.

        Raises:
            InputError: an input is missing, unknown, or has another shape or kind, or the batch is
                outside the plan's profile.
            MachineError: the backend failed: too little memory, mostly.
        """
        outputs = self.runner.run(self._inputs(arrays, named))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def run_on_device(self, *arrays: Any, **named: Any) -> DeviceArray | dict[str, DeviceArray]:
        """The same, and the outputs stay on the GPU; `torch.from_dlpack` takes one as it is.

        Raises:
            InputError: as a call; or the engine does not run a plan.
            MachineError: as a call.
        """
        if not isinstance(self.runner, TensorRTRunner):
            raise InputError(
                f"outputs stay on the GPU with a plan; this engine runs on {self.backend}. "
                'Load it with backend="tensorrt" or "tensorrt-rtx", or call it.'
            )
        outputs = self.runner.run_on_device(self._inputs(arrays, named))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _inputs(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """What the runner gets: checked arrays, and as they are those on the GPU."""
        given = self._by_name(arrays, named)
        specs = self.manifest.inputs
        takes_gpu = isinstance(self.runner, TensorRTRunner)
        inputs = {
            spec.name: given[spec.name]
            if takes_gpu and is_on_gpu(given[spec.name])
            else checked(array_of(given[spec.name]), spec)
            for spec in specs
        }
        if all(isinstance(x, np.ndarray) for x in inputs.values()):
            check_batch({name: x.shape for name, x in inputs.items()}, specs, self._profile)
        return inputs

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
        fixed = self.manifest.inputs[0].dims[0]
        if isinstance(fixed, int):
            return fixed, fixed
        if self._profile is None:
            return 1, _CLASSIFY_BATCH
        least, most = self._profile.min, self._profile.max
        return least, min(max(_CLASSIFY_BATCH, least), most)

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
