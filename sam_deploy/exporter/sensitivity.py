"""What each group of layers costs in INT8 or FP8, and the largest set that a budget allows.

Judged on the calibration samples against the FP32 graph: the validation samples are kept for the
gate, which must not be tuned on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import onnx_ir as ir

from sam_deploy.errors import PrecisionError
from sam_deploy.exporter.calibrated import Calibrated
from sam_deploy.manifest import IslandReport
from sam_deploy.parity import Samples
from sam_deploy.parity.figures import OutputFigures
from sam_deploy.parity_report import OutputParity
from sam_deploy.precision.macs import multiply_adds
from sam_deploy.precision.quantize import (
    Layer,
    is_below,
    layers_to_quantize,
    weighted_layers,
)
from sam_deploy.progress import Progress
from sam_deploy.quantization import GroupCost, Quantization, SearchReport
from sam_deploy.runner import Arrays
from sam_deploy.runtime import OnnxRunner

SAMPLES = 32  # for a group's cost, which is told by a distance
SEARCH_SAMPLES = 512  # for the budget, where every decision counts
_BATCH = 4


class Sensitivity:
    """Measures quantized variants of the smoothed FP32 `graph`; files pass through `work`."""

    def __init__(
        self,
        graph: ir.Model,
        calibrated: Calibrated,
        islands: Sequence[IslandReport],
        samples: Samples,
        work: Path,
        *,
        classes: bool,
        batch: int | None,
    ) -> None:
        self._graph = graph
        self._calibrated = calibrated
        self._samples = samples
        self._path = work / "variant.onnx"
        self._classes = classes and len(graph.graph.outputs) == 1
        self._batch = batch
        layers = weighted_layers(graph.graph)
        self._groups = _grouped(layers_to_quantize(layers, calibrated.policy, islands))
        ir.save(graph, self._path)
        self._reference = OnnxRunner(self._path)

    def costs(self, progress: Progress) -> list[GroupCost]:
        """What each group costs on its own, the costliest first."""
        everything = max(sum(multiply_adds(node) for node in self._graph.graph), 1)
        count = min(self._usable, SAMPLES)
        expected = list(self._run(self._reference, count))
        found = []
        with progress.stage("groups", len(self._groups)) as advance:
            for group, layers in self._groups.items():
                worst = self._cost({layer.name for layer in layers}, expected, count)
                found.append(
                    GroupCost(
                        group=group,
                        layers=len(layers),
                        macs=sum(multiply_adds(layer.node) for layer in layers) / everything,
                        relative_rms=worst.relative_rms or 0.0,
                        top1_agreement=worst.top1_agreement,
                    )
                )
                advance(1)
        return sorted(found, key=lambda cost: -cost.relative_rms)

    def search(
        self, costs: Sequence[GroupCost], max_drop: float, progress: Progress
    ) -> tuple[list[GroupCost], SearchReport]:
        """The fewest groups kept in floats, costliest first, with which the drop is in `max_drop`.

        Returns `costs` with those groups marked, and what the rest costs.

        Raises:
            PrecisionError: not even the least costly group alone is within `max_drop`.
        """
        count = min(self._usable, SEARCH_SAMPLES)
        expected = list(self._run(self._reference, count))
        drops: dict[int, float] = {}

        def within(kept: int) -> bool:
            if kept not in drops:
                names = {layer.name for cost in costs[kept:] for layer in self._groups[cost.group]}
                drops[kept] = self._drop(self._cost(names, expected, count))
                advance(1)
            return drops[kept] <= max_drop

        with progress.stage("search", len(costs).bit_length() + 1) as advance:
            if not within(len(costs) - 1):
                raise PrecisionError(
                    f"no set of layers stays within --max-drop {max_drop:g}: "
                    f"{costs[-1].group} alone, the least costly, drops "
                    f"{drops[len(costs) - 1]:.3g} {self._unit}. Allow more, or export in FP16."
                )
            low, high = 0, len(costs) - 1  # high is within
            while low < high:
                middle = (low + high) // 2
                if within(middle):
                    high = middle
                else:
                    low = middle + 1
        marked = [msgspec.structs.replace(c, kept=i < high) for i, c in enumerate(costs)]
        return marked, SearchReport(max_drop=max_drop, drop=drops[high], samples=count)

    def policy(self, costs: Sequence[GroupCost]) -> Quantization:
        """The policy with which just the groups that a search kept stay in floats."""
        policy = self._calibrated.policy
        rest = [layer for c in costs if not c.kept for layer in self._groups[c.group]]
        paths = [
            layer.name if any(is_below(other, layer.path) for other in rest) else layer.path
            for c in costs
            if c.kept
            for layer in self._groups[c.group]
        ]
        return msgspec.structs.replace(
            policy,
            keep=list(dict.fromkeys([*policy.keep, *paths])),
            quantize=[path for path in policy.quantize if path not in paths],
        )

    @property
    def _usable(self) -> int:
        """How many samples could be read, which calibration found out."""
        return self._samples.count - len(self._samples.unreadable)

    @property
    def _unit(self) -> str:
        return "points of top-1 agreement" if self._classes else "per cent of relative RMS"

    def _drop(self, worst: OutputParity) -> float:
        if worst.top1_agreement is not None:
            return round(100 * (1 - worst.top1_agreement), 9)  # 1 of 100 is 1, not a bit more
        return 100 * (worst.relative_rms or 0.0)

    def _cost(self, names: Collection[str], expected: Sequence[Arrays], count: int) -> OutputParity:
        """The worst output with just the layers `names` quantized, on the first `count` samples."""
        variant = self._graph.clone()
        layers = [layer for layer in weighted_layers(variant.graph) if layer.name in names]
        self._calibrated.insert(variant.graph, layers)
        ir.save(variant, self._path)
        runner = OnnxRunner(self._path)
        figures = {
            value.name or "": OutputFigures(value.name or "", classes=self._classes)
            for value in self._graph.graph.outputs
        }
        for actual, reference in zip(self._run(runner, count), expected, strict=True):
            for name, figure in figures.items():
                figure.update(actual[name], reference[name])
        results = [figure.result() for figure in figures.values()]
        return max(results, key=lambda result: result.relative_rms or 0.0)

    def _run(self, runner: OnnxRunner, count: int) -> Iterator[Arrays]:
        size = self._batch or _BATCH
        batches = self._samples.filled(self._batch, _BATCH, lambda rows: None)
        for batch in islice(batches, -(-count // size)):
            yield runner.run(batch)


def _grouped(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Layers by the module that holds them: "block1.0.attn" for "block1.0.attn.proj"."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.path.rpartition(".")[0] or layer.path, []).append(layer)
    return groups
