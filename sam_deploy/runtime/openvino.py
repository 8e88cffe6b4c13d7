"""An ONNX file run by OpenVINO on its CPU device."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sam_deploy.errors import MachineError
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.described import Described
from sam_deploy.runtime.threads import usual_threads

OPENVINO = "OpenVINO"
_RESULT = "/sink_port_0"  # behind an output's name, in that of OpenVINO's node for it


def openvino_lacks() -> str | None:
    """Why OpenVINO cannot be tried here; None where it is installed."""
    found = PathFinder.find_spec("openvino")
    if found is None or found.loader is None:  # a mere folder of that name is no package
        return "OpenVINO is not installed. Run: pip install 'sam-deploy[openvino]'"
    return None


def openvino_version() -> str:
    """The installed one's; "none" where there is none that says so."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return "none"


class OpenVINORunner:
    """Runs the ONNX file `path` on OpenVINO's CPU device: arrays by name in, arrays by name out.

    What is not quantized is computed in FP32; with `bf16` in BF16 where the CPU has that, and
    `backend` says so. `streams` calls run at once, each on `threads`; 0 is as many as
    OMP_NUM_THREADS says, or all cores divided among the streams. Threads may share it: each call
    has a request, and so memory, of its own.

    Raises:
        MachineError: OpenVINO is not installed, does not start here, or has no way to run the file:
            what it refuses ONNX Runtime may run.
    """

    provider = OPENVINO

    def __init__(
        self, path: Path, *, threads: int = 0, streams: int = 1, bf16: bool = False
    ) -> None:
        if lacking := openvino_lacks():
            raise MachineError(lacking)
        try:
            import openvino

            core = openvino.Core()
            abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except Exception as error:  # libraries that are missing, a CPU that it does not know
            raise MachineError(f"OpenVINO does not start on this machine: {error}") from None
        self.bf16 = bf16 and "BF16" in abilities
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            # On CPUs with AMX its default is BF16, in silence.
            "INFERENCE_PRECISION_HINT": "bf16" if self.bf16 else "f32",
            "INFERENCE_NUM_THREADS": streams * (threads or usual_threads()),
            "NUM_STREAMS": streams,
        }
        try:
            self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except Exception as error:  # its exception classes are not public
            raise MachineError(f"OpenVINO refuses {path}: {_first_line(error)}") from None
        self.backend = f"openvino CPU in {'BF16' if self.bf16 else 'FP32'}"
        self.inputs = [_described(value, "") for value in self._compiled.inputs]
        self.outputs = [_described(value, _RESULT) for value in self._compiled.outputs]
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """One inference; shapes and dtypes as the graph declares them.

        Raises:
            MachineError: OpenVINO cannot run it here: too little memory, mostly.
        """
        with self._request() as request:
            try:
                found = request.infer(dict(inputs), share_inputs=True)
            except Exception as error:  # its exception classes are not public
                raise MachineError(
                    f"OpenVINO cannot run it on this machine: {_first_line(error)}"
                ) from None
            return {value.name: found[i].copy() for i, value in enumerate(self.outputs)}

    @contextmanager
    def _request(self) -> Iterator[Any]:
        with self._lock:
            request = self._idle.pop() if self._idle else None
        request = request or self._compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._idle.append(request)


def _described(value: Any, mark: str) -> Described:
    name = value.node.friendly_name.removesuffix(mark)
    if name not in value.names:
        name = value.any_name
    dims = [dim.get_length() if dim.is_static else "?" for dim in value.partial_shape]
    return Described(name, value.element_type.to_dtype().name, dims)


def _first_line(error: Exception) -> str:
    """What it says, without the places in its sources that its messages begin with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[0]
