"""Where in the network the error comes from, module by module and group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sam_deploy.parity import Samples
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference import Subject
from sam_deploy.runner import Arrays
from sam_deploy.runtime.onnx_backends import start_onnx
from sam_deploy.runtime.onnx_runner import CPU
from sam_deploy.verification.effects import group_effects
from sam_deploy.verification.inner_errors import OUTPUT, inner_errors
from sam_deploy.verification.jump import first_jump
from sam_deploy.verification.matching import Match, match_values
from sam_deploy.verification.result import LayerError, LayersReport
from sam_deploy.verification.scaled import scaled_values
from sam_deploy.verification.suggestions import is_quantized, suggestions_for
from sam_deploy.verification.values import values_of

SAMPLES = 8


def measure_layers(
    onnx_path: Path,
    graph: ir.Model,
    subject: Subject,
    recipe: Recipe,
    samples: Samples,
    *,
    artefact: str,
    work: Path,
    progress: Progress,
    provider: str = CPU,
    count: int = SAMPLES,
) -> LayersReport:
    """The error of the ONNX at `onnx_path` behind every module of `subject`, and which groups of
    modules it comes from.

    `graph` is the FP32 graph that `recipe` makes of `subject` (`exporter.lowered`); it stays as it
    is. The first `count` of `samples` are looked at, one by one where the batch is free. Files
    pass through the folder `work`.

    Raises:
        InputError: none of the samples could be read.
        BundleError: ONNX Runtime refuses the file.
        MachineError: ONNX Runtime cannot run it here.
    """
    batches, used = _first(samples, recipe.batch, count)
    model, runner = ir.load(onnx_path), start_onnx(onnx_path, provider)
    with progress.stage("match"):
        matches, unmatched = match_values(graph, subject, batches[0], work)
    there = values_of(model).keys() - scaled_values(graph, recipe)
    unmatched += [module for module, match in matches.items() if match.value not in there]
    matches = {module: match for module, match in matches.items() if match.value in there}
    layers, notes = inner_errors(runner, model, subject, matches, batches, work, progress)
    exits = _exits(layers, matches)
    effects = group_effects(graph, model, exits, batches, runner.provider, work, progress)
    quantized = [group for group in exits if is_quantized(group, model)]
    return LayersReport(
        artefact=artefact,
        backend=runner.backend,
        samples=used,
        layers=layers,
        jump=first_jump(effects, recipe.precision, quantized),
        suggestions=suggestions_for(effects, exits, layers, graph, quantized, recipe),
        unmatched=unmatched,
        notes=notes,
    )


def _first(samples: Samples, size: int | None, count: int) -> tuple[list[Arrays], int]:
    """Batches of up to `count` samples, those of a fixed size filled up; how many samples it is."""
    taken = list(islice(samples.batches(size or 1), -(-count // (size or 1))))
    used = sum(len(next(iter(x.values()))) for x in taken)
    if size:
        taken = [{n: np.resize(a, (size, *a.shape[1:])) for n, a in x.items()} for x in taken]
    return taken, used


def _exits(layers: Sequence[LayerError], matches: Mapping[str, Match]) -> dict[str, str]:
    """The value behind each group: its last module's, where no group before ends with the same."""
    last: dict[str, str] = {}
    for layer in layers:
        match = matches.get(layer.module)
        last[layer.group] = match.value if match else layer.module.removeprefix(OUTPUT)
    first: dict[str, str] = {}
    for group, value in last.items():
        first.setdefault(value, group)
    return {group: value for value, group in first.items()}
