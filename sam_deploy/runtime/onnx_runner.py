"""An ONNX file run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_deploy.errors import BundleError, MachineError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
FloatArray = npt.NDArray[np.floating[Any]]


def require_onnxruntime() -> Any:
    """The onnxruntime package; which of its builds is installed is the user's choice.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MachineError(
            "onnxruntime is not installed. Run: pip install 'sam-deploy[cpu]' "
            "(or [cuda] on a machine with a GPU)."
        ) from None
    return onnxruntime


class OnnxRunner:
    """Runs the ONNX file `path`: arrays by input name in, arrays by output name out.

    Raises:
        MachineError: onnxruntime is not installed, or the provider asked for does not start.
        BundleError: ONNX Runtime refuses the file.
    """

    def __init__(self, path: Path, providers: Sequence[str] = (CPU,)) -> None:
        onnxruntime = require_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if CUDA in providers and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's libraries come in packages of their own
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers)
            )
        except Exception as error:  # its exception classes are not public
            raise BundleError(f"ONNX Runtime refuses {path}: {error}") from None
        # A provider that fails to load is dropped in silence: say so instead.
        active = self._session.get_providers()
        if active[0] != providers[0]:
            raise MachineError(f"{providers[0]} did not start here; ONNX Runtime has {active}.")
        self.provider = str(active[0])
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    @property
    def backend(self) -> str:
        """What runs it, for reports: "onnxruntime CPUExecutionProvider"."""
        return f"onnxruntime {self.provider}"

    def run(self, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """One inference; shapes and dtypes as the graph declares them."""
        outputs = self._session.run(self.output_names, dict(inputs))
        return dict(zip(self.output_names, outputs, strict=True))
