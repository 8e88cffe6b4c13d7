"""A bundle that is served: requests checked against its manifest, batched, and answered."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.runner import Array, Arrays
from sam_deploy.serving.batching import Batcher, BatchOptions, Ran
from sam_deploy.serving.classification import classified
from sam_deploy.serving.datatypes import datatype_of
from sam_deploy.serving.failures import BadRequest, ServingError
from sam_deploy.serving.message import InferRequest, InferResponse, Tensor
from sam_deploy.serving.metrics import ModelMetrics
from sam_deploy.serving.options import ServeOptions
from sam_deploy.serving.servable import Port, Uses, selected
from sam_deploy.serving.statistics import Statistics
from sam_deploy.serving.worker import Worker
from sam_deploy.serving.worker.job import Begin, Ready


class Model:
    """The bundle in `folder`, a copy that is this model's own and goes with it."""

    def __init__(
        self,
        name: str,
        version: str,
        manifest: Manifest,
        folder: Path,
        options: ServeOptions,
        metrics: ModelMetrics,
    ) -> None:
        self.name, self.version = name, version
        self.manifest = manifest
        self.folder = folder
        self.statistics = Statistics()
        self.inputs: Sequence[Port] = [_port(spec) for spec in manifest.inputs]
        self.outputs: Sequence[Port] = [_port(spec) for spec in manifest.outputs]
        self._options = options
        self._metrics = metrics
        self._uses = Uses()
        firsts = {(spec.dims or [0])[0] for spec in (*manifest.inputs, *manifest.outputs)}
        self._batches = len(firsts) == 1 and all(isinstance(first, str) for first in firsts)
        self.batching = BatchOptions(max_batch=1)
        self._batcher: Batcher | None = None
        self.runs = Ready("", "")

    async def open(self) -> None:
        """Load it: its engine is verified and warm when this returns.

        Raises:
            SamDeployError, WorkerDied: it does not load; says why.
        """
        first = await self._start()
        self.runs = first.ready
        self.batching = self._options.batching(self.name, self.manifest, first.ready)
        waiting = [first]

        async def start() -> Worker:
            return waiting.pop() if waiting else await self._start()

        self._batcher = Batcher(start, self.batching, self)
        await self._batcher.open()
        self._metrics.watch_queue(lambda: self._batcher.queued if self._batcher else 0)

    async def close(self) -> None:
        """Answer what was asked, then free everything."""
        while self._uses.count:
            await asyncio.sleep(0.01)
        if self._batcher is not None:
            await self._batcher.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def using(self) -> AbstractContextManager[None]:
        """A context in which it is not closed."""
        return self._uses.one()

    @property
    def ready(self) -> bool:
        """Whether a request would be run now."""
        return self._batcher is not None and self._batcher.ready

    @property
    def max_batch(self) -> int:
        """Rows that run at once, 0 where the batch is fixed."""
        return self.batching.max_batch if self._batches else 0

    @property
    def labels(self) -> Sequence[str]:
        """Class names, or none."""
        return self.manifest.class_names

    @property
    def about(self) -> Mapping[str, str]:
        """What runs it."""
        return {"artefact": self.runs.artefact, "backend": self.runs.backend}

    async def infer(self, request: InferRequest, timeout_s: float) -> InferResponse:
        """Answer a request with tensors.

        Raises:
            ServingError: it cannot be answered; says why.
        """
        begun = time.perf_counter_ns()
        try:
            wanted = selected(request, self.outputs)
            ran = await self.run(self._checked(request.inputs), timeout_s)
            tensors = {
                name: Tensor(name, datatype_of(array.dtype), array)
                for name, array in ran.outputs.items()
                if name in wanted
            }
            for output in request.wanted:
                if output.classes:
                    tensors[output.name] = classified(
                        tensors[output.name], output.classes, self.labels
                    )
        except ServingError:
            self.statistics.failed(time.perf_counter_ns() - begun)
            raise
        whole_ns = time.perf_counter_ns() - begun
        self.statistics.succeeded(whole_ns, ran.queue_ns, ran.compute_ns)
        return InferResponse(
            self.name, self.version, request.id, tuple(tensors[name] for name in wanted)
        )

    async def run(self, inputs: Arrays, timeout_s: float) -> Ran:
        """Run checked inputs, in company where there is some.

        Raises:
            ServingError: as `Batcher.submit`.
        """
        assert self._batcher is not None
        ran = await self._batcher.submit(inputs, timeout_s=timeout_s, batches=self._batches)
        self._metrics.answered(ran)
        return ran

    def ran(self, rows: int, compute_ns: int) -> None:
        """A batch ran (the batcher tells)."""
        self.statistics.executed(rows, compute_ns)
        self._metrics.ran(rows, compute_ns)

    def restarted(self, what: str) -> None:
        """A worker or the batcher itself was started again (the batcher tells)."""
        self._metrics.restarted(what)

    async def _start(self) -> Worker:
        options = self._options
        return await Worker.start(
            Begin(str(self.folder), options.require, options.threads, options.refuse_nan)
        )

    def _checked(self, tensors: Sequence[Tensor]) -> Arrays:
        given = {tensor.name: tensor for tensor in tensors}
        names = [spec.name for spec in self.manifest.inputs]
        if len(given) != len(tensors) or given.keys() != set(names):
            came = ", ".join(tensor.name[:80] for tensor in tensors) or "none"
            raise BadRequest(f"expected the inputs {', '.join(names)}, once each; got {came}")
        arrays = {spec.name: self._fitting(given[spec.name], spec) for spec in self.manifest.inputs}
        if len({len(array) for array in arrays.values()}) > 1 and self._batches:
            raise BadRequest("the inputs have different batches")
        return arrays

    def _fitting(self, tensor: Tensor, spec: TensorSpec) -> Array:
        """Refused here, a request spoils no batch."""
        array, expected = tensor.array, datatype_of(spec.dtype)
        pixels = self._pixels(spec)
        if pixels and tensor.datatype == "UINT8" and array.shape[1:] == pixels:
            return array
        floats = tensor.datatype.startswith("FP") and expected.startswith("FP")
        if tensor.datatype != expected and not floats:
            or_pixels = f", or images as UINT8 {[-1, *pixels]}" if pixels else ""
            raise BadRequest(
                f"input {spec.name} is {tensor.datatype}; expected {expected}{or_pixels}"
            )
        wanted = [-1 if isinstance(dim, str) else dim for dim in spec.dims]
        if array.ndim != len(wanted) or any(
            size not in (-1, found) for size, found in zip(wanted, array.shape, strict=False)
        ):
            raise BadRequest(f"input {spec.name} has shape {list(array.shape)}; expected {wanted}")
        return array

    def _pixels(self, spec: TensorSpec) -> tuple[int, ...] | None:
        """The shape of an image that the engine takes as it is, without the batch."""
        preprocessing = self.manifest.preprocessing
        if preprocessing is None or not spec.dtype.startswith("float") or len(spec.dims) != 4:
            return None
        return (*preprocessing.size_px, 3)


def _port(spec: TensorSpec) -> Port:
    shape = tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    return Port(spec.name, datatype_of(spec.dtype), shape)
