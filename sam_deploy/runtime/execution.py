"""One execution context of a plan with its stream, memory and CUDA graph: for one thread a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_deploy.errors import MachineError
from sam_deploy.manifest import TensorSpec
from sam_deploy.runner import Arrays
from sam_deploy.runtime.device_array import DeviceArray
from sam_deploy.runtime.gpu import DeviceView, Gpu, Graph
from sam_deploy.runtime.inputs import check_device_view
from sam_deploy.runtime.staging import Staging
from sam_deploy.tensorrt_family import Log, Said

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


@dataclass
class Graphs:
    """Whether calls are captured in CUDA graphs, and why no more are: one failure ends it."""

    wanted: bool = True
    refused: str | None = None


class Execution:
    """Runs a plan's `context` (an IExecutionContext) on `gpu`.

    `check` raises InputError for shapes that the plan does not take; `log` is the flavour's.

    With `graphs` wanted, a call with the shapes and addresses of the one before it is captured in a
    CUDA graph, and those after it only launch that. The call before was the warm-up: TensorRT did
    all in it that may not be captured.
    """

    def __init__(
        self,
        context: Any,
        gpu: Gpu,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        check: Callable[[Shapes], None],
        log: Log,
        graphs: Graphs,
    ) -> None:
        self._context = context
        self._gpu = gpu
        self._inputs, self._outputs = inputs, outputs
        self._check, self._log = check, log
        self._graphs = graphs
        self._stream = gpu.stream()
        self._staging = {spec.name: Staging(gpu, self._stream) for spec in [*inputs, *outputs]}
        self._shapes: Shapes = {}
        self._addresses: dict[str, int] = {}
        self._graph: Graph = None
        self._said = Said()

    def run(self, given: Mapping[str, Any], *, keep: bool) -> Arrays | dict[str, DeviceArray]:
        """The outputs for `given`, numpy arrays or arrays on the GPU by input name.

        With `keep` they stay on the GPU. Everything is done when this returns.

        Raises:
            InputError: an array on the GPU does not fit; an array that is too large.
            MachineError: the GPU or TensorRT failed.
        """
        with self._log.gathered() as self._said:
            shapes = self._enqueued(given)
            return self._kept(shapes) if keep else self._fetched(shapes)

    def close(self) -> None:
        """Wait for what runs, and free everything, TensorRT's own memory too."""
        with suppress(MachineError):
            self._gpu.wait(self._stream)
        self._drop_graph()
        self._context = None
        for staging in self._staging.values():
            staging.close()
        with suppress(MachineError):
            self._gpu.free(self._stream)

    def _enqueued(self, given: Mapping[str, Any]) -> Shapes:
        """Put one call on the stream; returns the shapes of its outputs."""
        arrays = self._on_gpu(given)
        shapes = {name: tuple(x.shape) for name, x in arrays.items()}
        self._check(shapes)
        addresses = {
            name: x.address if isinstance(x, DeviceView) else self._staging[name].put(x)
            for name, x in arrays.items()
        }
        moved = shapes != self._shapes
        if moved:
            self._set_shapes(shapes)
        found = {spec.name: self._output_shape(spec) for spec in self._outputs}
        for spec in self._outputs:
            addresses[spec.name] = self._staging[spec.name].fit(_nbytes(found[spec.name], spec))
        self._enqueue(addresses, again=not moved and addresses == self._addresses)
        return found

    def _on_gpu(self, given: Mapping[str, Any]) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for spec in self._inputs:
            x = given[spec.name]
            if not isinstance(x, np.ndarray):
                x = self._gpu.view(x, self._stream)
                check_device_view(x, spec)
            arrays[spec.name] = x
        return arrays

    def _set_shapes(self, shapes: Shapes) -> None:
        self._drop_graph()
        self._shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise MachineError(f"TensorRT refuses {name} {shape}: {self._said.reason}")
        self._shapes = shapes

    def _output_shape(self, spec: TensorSpec) -> Shape:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        if any(size < 0 for size in shape):
            raise MachineError(
                f"the shape of output {spec.name} depends on values; run the ONNX of the bundle: "
                'load(..., require="cpu")'
            )
        return shape

    def _enqueue(self, addresses: dict[str, int], *, again: bool) -> None:
        if not again:
            self._drop_graph()
            for name, address in addresses.items():
                if not self._context.set_tensor_address(name, address):
                    raise MachineError(f"TensorRT refuses {name}'s memory: {self._said.reason}")
            self._addresses = addresses
        elif self._graphs.wanted and self._graph is None and self._graphs.refused is None:
            self._capture()
        if self._graph is not None:
            self._gpu.launch(self._graph, self._stream)
        elif not self._execute():
            raise MachineError(f"TensorRT cannot run the plan: {self._said.reason}")

    def _execute(self) -> bool:
        return bool(self._context.execute_async_v3(int(self._stream.handle)))

    def _capture(self) -> None:
        """Capture the call; what cannot be captured runs all the same, only slower."""
        capturable = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX alone
        if capturable and not capturable(int(self._stream.handle)):
            self._graphs.refused = "TensorRT-RTX says that this plan cannot be captured"
            return
        try:
            self._graph = self._gpu.capture(self._stream, self._execute)
        except MachineError as error:
            self._graphs.refused = f"{error}: {self._said.reason}"

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            with suppress(MachineError):
                self._gpu.free(graph)

    def _fetched(self, shapes: Shapes) -> Arrays:
        for spec in self._outputs:
            self._staging[spec.name].fetch(_nbytes(shapes[spec.name], spec))
        self._gpu.wait(self._stream)
        return {
            spec.name: self._staging[spec.name].array(shapes[spec.name], np.dtype(spec.dtype))
            for spec in self._outputs
        }

    def _kept(self, shapes: Shapes) -> dict[str, DeviceArray]:
        """The outputs in memory of their own, which the next call does not write over."""
        kept = {}
        for spec in self._outputs:
            shape, nbytes = shapes[spec.name], _nbytes(shapes[spec.name], spec)
            buffer = self._gpu.allocate(nbytes, self._stream)
            source = self._addresses[spec.name]
            self._gpu.copy(int(buffer.handle), source, nbytes, self._stream)
            kept[spec.name] = DeviceArray(buffer, shape, np.dtype(spec.dtype))
        self._gpu.wait(self._stream)
        return kept


def _nbytes(shape: Shape, spec: TensorSpec) -> int:
    return math.prod(shape) * np.dtype(spec.dtype).itemsize
