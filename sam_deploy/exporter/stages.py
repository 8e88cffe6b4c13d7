"""Subject in, bundle out: every stage in its order, nothing left behind but what is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_deploy.bundle import MODEL, bundle_path, check_target, publish, set_aside, staged
from sam_deploy.errors import CheckFailed
from sam_deploy.exporter.calibration_data import Data, data_for
from sam_deploy.exporter.gate import hold
from sam_deploy.exporter.known import known_subject
from sam_deploy.exporter.manifest_of import manifest_of
from sam_deploy.exporter.own import factory_subject
from sam_deploy.exporter.subject import Subject
from sam_deploy.exporter.tensor_specs import tensor_specs
from sam_deploy.exporter.typed import measure, write_typed
from sam_deploy.lowering import check_graph, check_traps, onnx_from_module
from sam_deploy.manifest import Manifest
from sam_deploy.parity import Samples
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.rewrites import Rule, rewrite, static_paths
from sam_deploy.runtime import require_onnxruntime

_WORK = "work"  # of the staged folder: what is measured goes through files there


@dataclass(frozen=True)
class Export:
    """A finished export: where the bundle is, what its manifest says, and what else was noted."""

    bundle: Path
    manifest: Manifest
    notes: list[str] = field(default_factory=list)


def export_recipe(
    recipe: Recipe,
    *,
    out: Path,
    name: str | None = None,
    force: bool = False,
    data: Path | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export `recipe` into the bundle `out/name`, which appears complete or not at all.

    Parity is measured on the images or arrays in `data`, else on a built-in set. `force` replaces
    a bundle that is there.

    Raises:
        InputError: the target is taken; weights, network, images or class names cannot be used.
        MachineError: onnxruntime, which parity needs, is not installed.
        CheckFailed: a rule, the graph, its precision or parity failed. A model that was written by
            then is kept aside in `out/name.rejected`, as the message says.
    """
    target = bundle_path(out, recipe.name if name is None else name)
    return export_subject(
        lambda: subject_from_recipe(recipe),
        recipe,
        target,
        force=force,
        data=data,
        progress=progress,
    )


def subject_from_recipe(recipe: Recipe) -> Subject:
    """The eager model that `recipe` describes, with its weights.

    Raises:
        InputError: the checkpoint, the factory or the options do not fit.
    """
    return factory_subject(recipe) if recipe.is_own else known_subject(recipe)


def export_subject(
    load: Callable[[], Subject],
    recipe: Recipe,
    target: Path,
    *,
    force: bool,
    data: Path | None,
    progress: Progress | None,
    pipeline: Sequence[Rule[Any]] | None = None,
    calibration: Iterable[Any] | None = None,
) -> Export:
    """Export what `load` gives as `recipe` says; the rest is as in `export_recipe`.

    `calibration` are batches from Python, in place of what the recipe names.
    """
    progress = progress or Progress()
    check_target(target, force=force)
    require_onnxruntime()
    with staged(target) as folder:
        try:
            with progress.stage("load"):
                subject = load()
            work = folder / _WORK
            work.mkdir()
            both = data_for(subject, recipe, data, calibration, work, progress)
            made = _made(subject, recipe, both, target, folder, progress, pipeline)
            with progress.stage("bundle"):
                publish(folder, target, made.manifest, force=force)
            return made
        except CheckFailed as failure:
            if not (folder / MODEL).exists():
                raise
            kept = set_aside(folder, target)
            raise type(failure)(
                f"{failure}\nNo bundle was written; the files are in {kept}."
            ) from None


def _made(
    subject: Subject,
    recipe: Recipe,
    data: Data,
    target: Path,
    folder: Path,
    progress: Progress,
    pipeline: Sequence[Rule[Any]] | None,
) -> Export:
    """The files of the bundle in `folder`, and its manifest."""
    notes: list[str] = []

    def note(found: list[str]) -> None:
        notes.extend(found)
        for text in found:
            progress.note(text)

    with progress.stage("rewrite"):
        module, rewrites = rewrite(
            subject.module, subject.example_inputs, recipe.rewrites, pipeline
        )
    static = [""]
    if subject.own:
        static = static_paths(module)
        with progress.stage("preflight"):
            traps = check_traps(module, subject.example_inputs, batch=recipe.batch)
        note(traps)
    with progress.stage("lower"):
        graph = onnx_from_module(
            module,
            subject.example_inputs,
            input_names=subject.input_names,
            output_names=subject.output_names,
            batch=recipe.batch,
        )
        check_graph(graph, static)
    inputs = tensor_specs(graph.graph.inputs, recipe.io_dtype)
    outputs = tensor_specs(graph.graph.outputs, recipe.io_dtype)
    measured = measure(graph, recipe, subject.islands, data, folder / _WORK, progress)
    note(data.notes())
    shutil.rmtree(folder / _WORK)
    with progress.stage(recipe.precision):
        precision = write_typed(graph, recipe, measured, folder / MODEL)
    report = hold(subject, recipe, data.validation, inputs, outputs, folder, progress)
    note(_of_samples(data.validation, report.samples))
    manifest = manifest_of(
        target.name,
        recipe,
        subject,
        inputs=inputs,
        outputs=outputs,
        rewrites=rewrites,
        graph=graph,
        precision=precision,
        parity=report,
        folder=folder,
    )
    return Export(target, manifest, notes)


def _of_samples(samples: Samples, used: int) -> list[str]:
    notes = []
    if used == 1:
        notes.append(
            "parity was measured on a single sample: a model that ignores its input would pass. "
            "Give more, as rows of the example inputs or as data."
        )
    if samples.unreadable:
        shown = "; ".join(list(samples.unreadable.values())[:5])
        notes.append(f"{len(samples.unreadable)} of {samples.count} images were left out: {shown}")
    return notes
