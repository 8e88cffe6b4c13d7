"""A graph on OpenVINO's CPU device, as a contestant's process runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam_deploy.bench.contestant import Run
from sam_deploy.errors import MachineError
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime.openvino import OpenVINORunner


def make_openvino_graph(path: str, outputs: list[str], *, bf16: bool) -> Run:
    """The file, computed in FP32 or BF16 where it is not quantized; its outputs are called
    `outputs`, in their order.

    Raises:
        MachineError: OpenVINO does not run it here, or `bf16` is asked of a CPU that has none.
    """
    runner = OpenVINORunner(Path(path), bf16=bf16)
    if runner.bf16 != bf16:
        raise MachineError("this CPU has no BF16: OpenVINO would compute in FP32")

    def run(inputs: Mapping[str, Array]) -> Arrays:
        return dict(zip(outputs, runner.run(inputs).values(), strict=True))

    return run
