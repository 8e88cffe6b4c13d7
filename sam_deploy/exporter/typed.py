"""The graph gets its types: islands found, FP16, INT8 or FP8 applied, the result audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from sam_deploy.errors import GraphSpecError
from sam_deploy.exporter.calibrated import Calibrated, calibrate, quantize
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.manifest import IslandReport, LargestValue, PrecisionReport
from sam_deploy.parity import PARITY_BATCH, Samples
from sam_deploy.precision import (
    audit_precision,
    check_share,
    fp32_only_islands,
    largest_in_fp16,
    largest_values,
    overflow_islands,
    to_fp16,
    write_instrumented,
)
from sam_deploy.progress import Progress
from sam_deploy.quantization import QuantizationReport
from sam_deploy.recipe import Island, Recipe
from sam_deploy.runtime import OnnxRunner


@dataclass(frozen=True)
class Measured:
    """What was measured on the FP32 graph: how large every value became, by name, and the
    calibration where the recipe quantizes. `islands` are what stays in FP32: what was listed and
    what FP16 cannot hold.
    """

    islands: list[IslandReport] = field(default_factory=list)
    reached: dict[str, float] = field(default_factory=dict)
    calibrated: Calibrated | None = None


def measure(
    graph: ir.Model,
    recipe: Recipe,
    listed: Sequence[Island],
    data: Data,
    work: Path,
    progress: Progress,
) -> Measured:
    """Measure what the recipe's precision needs; smooths `graph`, in place, where it quantizes.

    Raises:
        PrecisionError: the quantization policy names no layer, or leaves none; FP16 cannot hold
            the model.
        InputError: the calibration samples cannot be used.
    """
    if recipe.precision == "fp32":
        return Measured()
    islands = [IslandReport(match=i.match, reason=i.reason) for i in listed]
    calibrated = None
    if data.calibration is not None:
        calibrated = calibrate(graph, recipe, islands, data.calibration, work, progress)
    if recipe.beside == "fp32":
        return Measured(islands, {}, calibrated)
    reached = _reached(graph, recipe, data.validation, work / "ranges.onnx", progress)
    if calibrated is not None:
        for name, range_ in calibrated.ranges.items():
            reached[name] = max(reached.get(name, 0.0), range_.largest)
    islands += fp32_only_islands(graph, islands)
    islands += overflow_islands(graph, reached, islands, recipe.io_dtype)
    return Measured(islands, reached, calibrated)


def write_typed(graph: ir.Model, recipe: Recipe, measured: Measured, path: Path) -> PrecisionReport:
    """Give the FP32 `graph` the recipe's precision, in place, and write it to `path`.

    What is in an island is not quantized.

    Raises:
        PrecisionError: too much would stay in FP32, nothing is left to quantize, or the written
            graph is not in the precision asked for.
        GraphSpecError: the ONNX checker refuses it.
    """
    islands, reached = measured.islands, dict(measured.reached)
    share, largest, quantization = 0.0, None, None
    if recipe.precision != "fp32":
        share = check_share(graph, islands, recipe.allow_islands)
        if measured.calibrated is not None:
            quantization, ranges = quantize(graph, measured.calibrated, islands)
            reached |= ranges
        if recipe.beside == "fp16":
            largest = largest_in_fp16(graph, reached, islands)
            to_fp16(graph, islands, recipe.io_dtype)
    return _written(graph, recipe, islands, share, largest, quantization, path)


def _reached(
    graph: ir.Model, recipe: Recipe, samples: Samples, path: Path, progress: Progress
) -> dict[str, float]:
    """How large every value becomes in FP32 on the samples; `path` is for a passing file."""
    with progress.stage("ranges", samples.count) as advance:
        write_instrumented(graph, path)
        runner = OnnxRunner(path, in_file_order=True)
        path.unlink()
        return largest_values(runner, samples.filled(recipe.batch, PARITY_BATCH, advance))


def _written(
    graph: ir.Model,
    recipe: Recipe,
    islands: Sequence[IslandReport],
    share: float,
    largest: LargestValue | None,
    quantization: QuantizationReport | None,
    path: Path,
) -> PrecisionReport:
    ir.save(graph, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphSpecError(f"the ONNX checker refuses the exported graph: {error}") from None
    return audit_precision(
        onnx.load(path),
        recipe.precision,
        islands,
        recipe.io_dtype,
        island_macs=share,
        largest=largest,
        quantization=quantization,
    )
