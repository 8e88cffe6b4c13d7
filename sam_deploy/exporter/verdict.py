"""Is INT8 (or FP8) worth it? Timed against floats where the target runs, else not measured.

ONNX Runtime's CPU provider computes FP16 in FP32, so there the rival is FP32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from sam_deploy.bundle import MODEL
from sam_deploy.cpu_info import cpu_name
from sam_deploy.engines import plan_from_onnx
from sam_deploy.errors import MachineError
from sam_deploy.exporter.typed import Measured, write_typed
from sam_deploy.gpu_info import find_gpu
from sam_deploy.latency import LEAST_GAIN, speed_ratio
from sam_deploy.manifest import PrecisionReport, TensorSpec, Verdict
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES, FloatPrecision, Precision, Recipe
from sam_deploy.runner import Arrays
from sam_deploy.runtime import OnnxRunner, require_onnxruntime
from sam_deploy.runtime.machine import find_machine
from sam_deploy.runtime.onnx_runner import CPU, CUDA
from sam_deploy.runtime.passport import misfit
from sam_deploy.runtime.tensorrt_runner import TensorRTRunner


@dataclass(frozen=True)
class Floats:
    """The same model without quantization: its FP32 graph, and what was measured on it."""

    graph: ir.Model
    recipe: Recipe
    measured: Measured

    def write(self, precision: FloatPrecision, path: Path) -> PrecisionReport:
        """Write it to `path` in `precision`."""
        recipe = in_floats(self.recipe, precision)
        return write_typed(self.graph.clone(), recipe, self.measured, path)


def in_floats(recipe: Recipe, precision: Precision) -> Recipe:
    """`recipe` without its quantization, in `precision` and held to its default tolerances."""
    io_dtype: FloatPrecision = recipe.io_dtype if precision == "fp16" else "fp32"
    islands = recipe.islands if precision == "fp16" else []
    return msgspec.structs.replace(
        recipe,
        precision=precision,
        tolerances=DEFAULT_TOLERANCES[precision],
        io_dtype=io_dtype,
        islands=islands,
        quantization=None,
        calibration=None,
    )


def verdicts_of(
    floats: Floats,
    parity: ParityReport,
    specs: tuple[list[TensorSpec], list[TensorSpec]],
    plans: Sequence[PlanInfo],
    examples: Arrays,
    folder: Path,
    work: Path,
    progress: Progress,
) -> list[Verdict]:
    """The verdict for each plan, and for ONNX Runtime on its fastest provider here.

    `specs` are the inputs and outputs.
    """
    asked, batch = floats.recipe.precision, floats.recipe.batch
    if batch is not None:
        examples = {name: np.resize(a, (batch, *a.shape[1:])) for name, a in examples.items()}
    agreement = min(
        (o.top1_agreement for o in parity.outputs if o.top1_agreement is not None), default=None
    )

    def verdict(target: str, baseline: FloatPrecision, ratio: float | None) -> Verdict:
        faster = ratio is not None and ratio >= LEAST_GAIN
        return Verdict(
            target=target,
            precision=asked,
            baseline=baseline,
            ratio=ratio and round(ratio, 3),
            top1_agreement=agreement if ratio else None,
            ship=None if ratio is None else asked if faster else baseline,
        )

    found = []
    machine = find_machine([plan.flavour for plan in plans]) if plans else None
    for plan in plans:
        target, ratio = f"{plan.flavour} {plan.version}", None
        if machine is not None and machine.gpu is not None and misfit(plan, machine) is None:
            target += f" ({machine.gpu.name})"
            with progress.stage("verdict"):
                ratio = _plan_ratio(floats, plan, specs, examples, folder, work)
        found.append(verdict(target, "fp16", ratio))
    with progress.stage("verdict"):
        path = folder / MODEL
        on_cpu = floats.recipe.is_for_cpu
        quantized = OnnxRunner(path, CPU, spinning=False) if on_cpu else _fastest(path)
        baseline: FloatPrecision = "fp16" if quantized.provider == CUDA else "fp32"
        ratio = _onnx_ratio(floats, baseline, quantized, specs[0], examples, work)
    where = find_gpu().name if quantized.provider == CUDA else cpu_name()
    return [*found, verdict(f"ONNX Runtime's {quantized.provider} ({where})", baseline, ratio)]


def _fastest(path: Path) -> OnnxRunner:
    """On CUDA where that starts here, else on the CPU: ONNX Runtime lists what does not, too."""
    if CUDA in require_onnxruntime().get_available_providers():
        with suppress(MachineError):
            return OnnxRunner(path, CUDA, spinning=False)
    return OnnxRunner(path, CPU, spinning=False)


def _onnx_ratio(
    floats: Floats,
    baseline: FloatPrecision,
    quantized: OnnxRunner,
    inputs: list[TensorSpec],
    examples: Arrays,
    work: Path,
) -> float:
    rival = work / "floats.onnx"
    floats.write(baseline, rival)
    runner = OnnxRunner(rival, quantized.provider, spinning=False)
    typed = {runner_input.name: runner_input.dtype for runner_input in runner.inputs}
    its = _as(inputs, examples)
    others = {name: array.astype(typed[name]) for name, array in examples.items()}
    return speed_ratio(partial(quantized.run, its), partial(runner.run, others))


def _plan_ratio(
    floats: Floats,
    plan: PlanInfo,
    specs: tuple[list[TensorSpec], list[TensorSpec]],
    examples: Arrays,
    folder: Path,
    work: Path,
) -> float:
    rival = work / "floats.onnx"
    precision = floats.write("fp16", rival)
    options = floats.recipe.plans
    other = plan_from_onnx(rival, work, plan.flavour, options, precision, progress=Progress())
    runners = [
        TensorRTRunner((place / info.file).read_bytes(), info, *specs)
        for place, info in ((folder, plan), (work, other))
    ]
    try:
        given = _as(specs[0], examples)
        return speed_ratio(partial(runners[0].run, given), partial(runners[1].run, given))
    finally:
        for runner in runners:
            runner.close()


def _as(specs: Sequence[TensorSpec], examples: Arrays) -> Arrays:
    return {spec.name: examples[spec.name].astype(spec.dtype) for spec in specs}
