"""An ONNX file run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam_deploy.errors import BundleError, MachineError
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.described import Described
from sam_deploy.runtime.threads import usual_threads

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{f"tensor({name})": name for name in ("float16", "int64", "int32", "int16", "int8")},
    **{f"tensor({name})": name for name in ("uint8", "bool")},
}
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
BIAS_QUANTIZER = "WeightBiasQuantization"
"""An optimizer of ONNX Runtime's that rounds the float biases of INT8 and FP8 layers, some to
nothing: FP16 scales multiplied are too small for FP16."""


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

    `in_file_order` runs the nodes as they stand in the file, not as ONNX Runtime would order them.
    Without `spinning` its threads sleep while they wait: two sessions timed in turn must not take
    each other's cores. `threads` 0 is as many as OMP_NUM_THREADS says, or cores. `plain` is the way
    of other hosts: with every optimizer that is on by default. With `profile` nodes are timed, into
    a file whose name begins so, when `end_profile` is called.

    Raises:
        MachineError: onnxruntime is not installed, or the provider asked for does not start.
        BundleError: ONNX Runtime refuses the file.
    """

    def __init__(
        self,
        path: Path,
        provider: str = CPU,
        *,
        in_file_order: bool = False,
        spinning: bool = True,
        threads: int = 0,
        plain: bool = False,
        profile: Path | None = None,
    ) -> None:
        onnxruntime = require_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or usual_threads()
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        if in_file_order:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        if not spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider == CUDA and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's libraries come in packages of their own
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=[_with_options(provider)],
                disabled_optimizers=[] if plain else [BIAS_QUANTIZER],
            )
        except Exception as error:  # its exception classes are not public
            raise BundleError(f"ONNX Runtime refuses {path}: {error}") from None
        # A provider that fails to load is dropped in silence: say so instead, now and when it runs.
        active = self._session.get_providers()
        if active[0] != provider:
            raise MachineError(f"{provider} did not start here; ONNX Runtime has {active}.")
        self._session.disable_fallback()
        self.provider = str(active[0])
        self.inputs = [_described(value) for value in self._session.get_inputs()]
        self.outputs = [_described(value) for value in self._session.get_outputs()]
        self._output_names = [output.name for output in self.outputs]

    @property
    def backend(self) -> str:
        """What runs it, for reports: "onnxruntime CPUExecutionProvider"."""
        return f"onnxruntime {self.provider}"

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """One inference; shapes and dtypes as the graph declares them.

        Raises:
            MachineError: ONNX Runtime cannot run it here: too little memory, mostly.
        """
        try:
            outputs = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # its exception classes are not public
            raise MachineError(f"ONNX Runtime cannot run it on this machine: {error}") from None
        return dict(zip(self._output_names, outputs, strict=True))

    def end_profile(self) -> Path:
        """The file with the times of every node in every run, in the format of Chrome's traces."""
        return Path(self._session.end_profiling())


def _with_options(provider: str) -> str | tuple[str, dict[str, str]]:
    """FP32 is FP32: CUDA's default would multiply in TF32, in silence."""
    return (CUDA, {"use_tf32": "0"}) if provider == CUDA else provider


def _described(value: Any) -> Described:
    dtype = _DTYPES.get(value.type, value.type)
    return Described(value.name, dtype, ["?" if dim is None else dim for dim in value.shape])
