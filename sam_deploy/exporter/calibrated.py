"""The graph calibrated: smoothed, and the range of every activation that could be quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from sam_deploy.manifest import IslandReport
from sam_deploy.parity import PARITY_BATCH, Samples
from sam_deploy.parity.sample_hash import SamplesHash
from sam_deploy.precision.macs import multiply_adds
from sam_deploy.precision.quantize import (
    FP8,
    INT8,
    INT8_BY_UINT8,
    UINT8,
    Grid,
    Layer,
    Places,
    QuantizedWeight,
    Span,
    channel_maxima,
    insert_qdq,
    insert_qdq_around,
    layers_to_quantize,
    least_scale,
    observe,
    places_of,
    quantized_weight,
    smooth,
    smoothable,
    span,
    weighted_layers,
    write_channels,
    write_observed,
)
from sam_deploy.progress import Progress
from sam_deploy.quantization import (
    CalibrationReport,
    Quantization,
    QuantizationReport,
    QuantizedLayer,
)
from sam_deploy.recipe import Precision, Recipe
from sam_deploy.runtime import OnnxRunner

# How many rows of each layer's input tell how they go together: over all samples, of a batch.
_ROWS, _LEAST_ROWS = 16384, 16
GRIDS: dict[Precision, Grid] = {"int8": INT8, "fp8": FP8}


@dataclass(frozen=True)
class Calibrated:
    """What calibration found: the ranges of activations, and the quantized weights of layers, by
    their names. `grid` is the weights'.
    """

    grid: Grid
    policy: Quantization
    ranges: dict[str, Span]
    weights: dict[str, QuantizedWeight]
    smoothed: int
    report: CalibrationReport

    def insert(self, graph: ir.Graph, layers: Sequence[Layer]) -> dict[str, float]:
        """Put Q/DQ at `layers` into `graph`, in place, as the target wants it.

        Returns how large each new value can become that will be FP16, by name.
        """
        if self.policy.target == "cpu":
            insert_qdq_around(graph, layers, self.ranges, self.weights)
            return {}
        limits = {name: range_.largest for name, range_ in self.ranges.items()}
        return insert_qdq(graph, layers, limits, self.weights, self.grid)


def calibrate(
    graph: ir.Model,
    recipe: Recipe,
    islands: Sequence[IslandReport],
    samples: Samples,
    work: Path,
    progress: Progress,
) -> Calibrated:
    """Smooth the FP32 `graph`, in place, and measure the ranges that the recipe's policy needs.

    Files go to the folder `work` and from there.

    Raises:
        PrecisionError: the policy names no layer, or leaves none.
        InputError: there are no samples, or they make something that is not finite.
    """
    policy = recipe.quantization or Quantization()
    on_cpu = policy.target == "cpu"
    grid = INT8_BY_UINT8 if on_cpu else GRIDS[recipe.precision]
    layers = weighted_layers(graph.graph)
    chosen = layers_to_quantize(layers, policy, islands)
    path = work / "observed.onnx"
    smoothed = 0
    places = smoothable(layers, chosen) if policy.smooth else []
    if places:
        with progress.stage("smooth", samples.count) as advance:
            write_channels(graph, places, path)
            runner = OnnxRunner(path, in_file_order=True)
            batches = samples.filled(recipe.batch, PARITY_BATCH, advance)
            smoothed = smooth(places, chosen, channel_maxima(runner, batches), policy.smooth)
    used, count = SamplesHash(), 0
    with progress.stage("calibrate", samples.count) as advance:

        def counted(rows: int) -> None:
            nonlocal count
            count += rows
            advance(rows)

        activations = list(dict.fromkeys(layer.activation for layer in chosen))
        if on_cpu:
            activations = list(dict.fromkeys([*activations, *(la.output for la in chosen)]))
        write_observed(graph, activations, path)
        runner = OnnxRunner(path, in_file_order=True)
        readers = _readers(chosen) if policy.rounding == "together" else {}
        batches = used.over(samples).filled(recipe.batch, PARITY_BATCH, counted)
        number = -(-samples.count // (recipe.batch or PARITY_BATCH))
        found = observe(runner, batches, readers, max(_ROWS // number, _LEAST_ROWS))
    path.unlink()
    with progress.stage("round", len(chosen)) as advance:
        levels = UINT8 if on_cpu else grid
        ranges = {name: span(one.histogram, policy, levels) for name, one in found.items()}
        weights = {}
        for layer in chosen:
            least = least_scale(layer, ranges[layer.input]) if on_cpu else 0.0
            weights[layer.name] = quantized_weight(
                layer, grid, found[layer.input].moments(places_of(layer)), least
            )
            advance(1)
    report = CalibrationReport(
        data=samples.kind, samples=count, sha256=used.hexdigest(), method=policy.method
    )
    return Calibrated(grid, policy, ranges, weights, smoothed, report)


def _readers(layers: Sequence[Layer]) -> dict[str, list[Places]]:
    """How the layers read their activations, by the activations' names, each way once."""
    found: dict[str, list[Places]] = {}
    for layer in layers:
        places, known = places_of(layer), found.setdefault(layer.input, [])
        if places is not None and places not in known:
            known.append(places)
    return found


def quantize(
    graph: ir.Model, calibrated: Calibrated, islands: Sequence[IslandReport]
) -> tuple[QuantizationReport, dict[str, float]]:
    """Put Q/DQ into the smoothed FP32 `graph`, in place.

    Returns the report, and how large each new float value can become, by name.
    """
    layers = weighted_layers(graph.graph)
    macs = {layer.node: multiply_adds(layer.node) for layer in layers}
    everything = sum(multiply_adds(node) for node in graph.graph)
    chosen = layers_to_quantize(layers, calibrated.policy, islands)
    ranges, on_cpu = calibrated.ranges, calibrated.policy.target == "cpu"
    report = QuantizationReport(
        target=calibrated.policy.target,
        calibration=calibrated.report,
        layers=[
            QuantizedLayer(
                name=layer.name,
                kind=layer.kind,
                input_range=ranges[layer.input].largest,
                input_span=ranges[layer.input] if on_cpu else None,
                output_span=ranges[layer.output.name or ""] if on_cpu else None,
            )
            for layer in chosen
        ],
        smoothed=calibrated.smoothed,
        macs=sum(macs[layer.node] for layer in chosen) / max(everything, 1),
    )
    return report, calibrated.insert(graph.graph, chosen)
