"""The graph gets its types: islands found, FP16 applied, the result written and audited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from sam_deploy.errors import GraphSpecError
from sam_deploy.exporter.gate import PARITY_BATCH
from sam_deploy.manifest import IslandReport, LargestValue, PrecisionReport
from sam_deploy.parity import Samples
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
from sam_deploy.recipe import Island, Recipe
from sam_deploy.runner import Arrays
from sam_deploy.runtime import OnnxRunner


def write_typed(
    graph: ir.Model,
    recipe: Recipe,
    listed: Sequence[Island],
    samples: Samples,
    path: Path,
    progress: Progress,
) -> PrecisionReport:
    """Give `graph` the recipe's precision, in place, and write it to `path`.

    `listed` are the islands that were asked for; FP16 adds those that it needs.

    Raises:
        PrecisionError: FP16 cannot hold the model, too much of it would stay in FP32, or the
            written graph is not in the precision asked for.
        GraphSpecError: the ONNX checker refuses it.
    """
    islands = [IslandReport(match=i.match, reason=i.reason) for i in listed]
    share, largest = 0.0, None
    if recipe.precision == "fp16":
        reached = _reached(graph, recipe, samples, path.with_name("ranges.onnx"), progress)
        islands += fp32_only_islands(graph, islands)
        islands += overflow_islands(graph, reached, islands, recipe.io_dtype)
        share = check_share(graph, islands, recipe.allow_islands)
        largest = largest_in_fp16(graph, reached, islands)
    with progress.stage(recipe.precision):
        if recipe.precision == "fp16":
            to_fp16(graph, islands, recipe.io_dtype)
        return _written(graph, recipe, islands, share, largest, path)


def _reached(
    graph: ir.Model, recipe: Recipe, samples: Samples, path: Path, progress: Progress
) -> dict[str, float]:
    """How large every value becomes in FP32 on the samples; `path` is for a passing file."""
    with progress.stage("ranges", samples.count) as advance:
        write_instrumented(graph, path)
        runner = OnnxRunner(path, in_file_order=True)
        path.unlink()

        def batches() -> Iterator[Arrays]:
            for x in samples.batches(recipe.batch or PARITY_BATCH):
                rows = len(next(iter(x.values())))
                size = recipe.batch or rows
                yield {name: np.resize(a, (size, *a.shape[1:])) for name, a in x.items()}
                advance(rows)

        return largest_values(runner, batches())


def _written(
    graph: ir.Model,
    recipe: Recipe,
    islands: Sequence[IslandReport],
    share: float,
    largest: LargestValue | None,
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
    )
