"""A plan run by TensorRT 10, 11 or TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_deploy.errors import BundleError, MachineError
from sam_deploy.manifest import TensorSpec
from sam_deploy.plans import PlanInfo
from sam_deploy.runner import Arrays
from sam_deploy.runtime.device_array import DeviceArray
from sam_deploy.runtime.execution import Execution, Graphs, Shapes
from sam_deploy.runtime.gpu import Gpu
from sam_deploy.runtime.inputs import check_profile
from sam_deploy.runtime.pool import Pool
from sam_deploy.runtime.runtime_cache import RuntimeCache
from sam_deploy.tensorrt_family import Said, log_of, member

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    **{name.upper(): name for name in ("int64", "int32", "int8", "uint8", "bool")},
}


class TensorRTRunner:
    """Runs the plan `data`, whose passport `plan` fits this machine and whose hash was checked.

    `inputs` and `outputs` are the manifest's. `contexts` threads can run at once; each context has
    its own stream and memory, and is made when it is first needed. With `graphs`, repeated calls
    of one shape run as a CUDA graph. TensorRT-RTX keeps what it compiles in `cache`.

    Raises:
        BundleError: the plan's inputs and outputs are not the manifest's.
        InputError: `contexts` is below 1.
        MachineError: the flavour, cuda-core or a GPU is missing, or TensorRT refuses the plan.
    """

    def __init__(
        self,
        data: bytes,
        plan: PlanInfo,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        contexts: int = 1,
        graphs: bool = True,
        cache: Path | None = None,
    ) -> None:
        self._plan = plan
        self._inputs, self._outputs = inputs, outputs
        self._member = member(plan.flavour)
        self._log = log_of(self._member)
        self._gpu = Gpu()
        self.graphs = Graphs(wanted=graphs)
        self._pool = Pool(self._execution, contexts)
        self._prepared = False
        with self._gpu.current(), self._log.gathered() as said:
            self._runtime = self._member.trt.Runtime(self._log.logger)
            self._check_valid(data, said)
            self._engine = self._runtime.deserialize_cuda_engine(data)
            if self._engine is None:
                raise MachineError(f"{self._member.name} refuses {plan.file}: {said.reason}")
            self._check_tensors()
            self._config, self._cache = self._runtime_config(cache)

    @property
    def backend(self) -> str:
        """What runs it, for reports: "tensorrt 10.16.1.11"."""
        return f"{self._plan.flavour} {self._plan.version}"

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """One inference: numpy arrays, or arrays on the GPU, by input name; numpy arrays back.

        Shapes and dtypes as the manifest declares them. An array on the GPU (anything with DLPack
        or the CUDA array interface) is read where it lies, after the work that makes it.

        Raises:
            InputError: an array on the GPU does not fit, or a batch is outside the plan's profile.
            MachineError: the GPU or TensorRT failed.
        """
        outputs: Arrays = self._run(inputs, keep=False)
        return outputs

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        """The same, with outputs that stay on the GPU and are complete when this returns."""
        outputs: dict[str, DeviceArray] = self._run(inputs, keep=True)
        return outputs

    def close(self) -> None:
        """Wait for calls that run, keep the cache, and free the GPU's memory. Twice is once."""
        if self._engine is None:
            return
        with self._gpu.current():
            self._pool.close()
            if self._cache:
                self._cache.save()
            self._cache = self._config = None
            self._engine = self._runtime = None

    def _run(self, inputs: Mapping[str, Any], *, keep: bool) -> Any:
        with self._gpu.current(), self._pool.taken() as execution:
            return execution.run(inputs, keep=keep)

    def _execution(self) -> Execution:
        with self._log.gathered() as said:
            context = (
                self._engine.create_execution_context(runtime_config=self._config)
                if self._config
                else self._engine.create_execution_context()
            )
        if context is None:
            raise MachineError(
                f"{self._member.name} cannot prepare {self._plan.file}: {said.reason}"
            )
        if self._cache and not self._prepared:
            self._cache.save()  # a service may be killed before it is closed; no other runs yet
        self._prepared = True
        return Execution(
            context,
            self._gpu,
            self._inputs,
            self._outputs,
            check=self._check_shapes,
            log=self._log,
            graphs=self.graphs,
        )

    def _check_shapes(self, shapes: Shapes) -> None:
        check_profile(shapes, self._inputs, self._plan.profile)

    def _check_valid(self, data: bytes, said: Said) -> None:
        """Ask before deserializing, where TensorRT can tell (TensorRT-RTX alone)."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        validity, diagnostics = self._runtime.get_engine_validity(data)
        if validity == self._member.trt.EngineValidity.INVALID:
            known = self._member.trt.EngineInvalidityDiagnostics.__members__
            reasons = [name for name, bit in known.items() if int(diagnostics) & int(bit)]
            why = ", ".join(name.lower().replace("_", " ") for name in reasons)
            raise MachineError(
                f"{self._member.name} refuses {self._plan.file}: {why or said.reason}"
            )

    def _check_tensors(self) -> None:
        found = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        described = sorted(self._described(name) for name in found)
        declared = sorted(
            [_declared(spec, "INPUT") for spec in self._inputs]
            + [_declared(spec, "OUTPUT") for spec in self._outputs]
        )
        if described != declared:
            raise BundleError(
                f"{self._plan.file} has {described}, its manifest declares {declared}. "
                "Build it again: sam-export --rebuild."
            )

    def _described(self, name: str) -> tuple[str, str, str, tuple[int, ...]]:
        dtype = self._engine.get_tensor_dtype(name).name
        mode = self._engine.get_tensor_mode(name).name
        shape = tuple(self._engine.get_tensor_shape(name))
        return name, mode, _DTYPES.get(dtype, dtype), shape

    def _runtime_config(self, cache: Path | None) -> tuple[Any, RuntimeCache | None]:
        """TensorRT-RTX compiles kernels on the GPU: where it keeps them, and when it does."""
        if not hasattr(self._member.trt, "IRuntimeCache"):
            return None, None
        config = self._engine.create_runtime_config()
        strategy = self._member.trt.DynamicShapesKernelSpecializationStrategy
        # a captured graph keeps the kernels that it was captured with: have the best at once
        if self.graphs.wanted:
            config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        return config, RuntimeCache(config, cache) if cache else None


def _declared(spec: TensorSpec, mode: str) -> tuple[str, str, str, tuple[int, ...]]:
    sizes = tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    return spec.name, mode, str(np.dtype(spec.dtype)), sizes
