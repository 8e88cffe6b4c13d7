"""Subject in, bundle out: every stage in its order, nothing left behind but what is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sam_deploy.bundle import MODEL, bundle_path, check_target, publish, set_aside, staged
from sam_deploy.errors import CheckFailed
from sam_deploy.exporter.artefact import Artefact, Workplace, make_artefact
from sam_deploy.exporter.best import best_artefact
from sam_deploy.exporter.calibration_data import Data, data_for
from sam_deploy.exporter.lowered import Lowered, lowered
from sam_deploy.exporter.manifest_of import manifest_of
from sam_deploy.exporter.notes import Notes
from sam_deploy.exporter.plans import flavours_for
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.tune import Tuned, tune
from sam_deploy.manifest import Manifest
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.reference import Subject, subject_from_recipe
from sam_deploy.report import RewriteReport
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites import Rule
from sam_deploy.runtime import require_onnxruntime
from sam_deploy.tuning import TuningReport

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
    request: Request | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export `recipe` into the bundle `out/name`, which appears complete or not at all.

    Raises:
        InputError: the target is taken; weights, network, images or class names cannot be used.
        MachineError: onnxruntime, which parity needs, or a TensorRT that was asked for, is missing.
        CheckFailed: a rule, the graph, its precision or parity failed. A model that was written by
            then is kept aside in `out/name.rejected`, as the message says.
    """
    request = request or Request()  # where the best is shipped, "best" stands for the precision
    usual = recipe.named("best") if request.ship_best else recipe.name
    target = bundle_path(out, usual if name is None else name)
    return export_subject(
        lambda: subject_from_recipe(recipe), recipe, target, request=request, progress=progress
    )


def export_subject(
    load: Callable[[], Subject],
    recipe: Recipe,
    target: Path,
    *,
    request: Request,
    progress: Progress | None,
    pipeline: Sequence[Rule[Any]] | None = None,
) -> Export:
    """Export what `load` gives as `recipe` says; the rest is as in `export_recipe`."""
    notes = Notes(progress or Progress())
    request.check(recipe)
    check_target(target, force=request.force)
    require_onnxruntime()
    flavours, skipped = flavours_for(recipe, request)
    with staged(target) as folder:
        work = folder / _WORK
        try:
            work.mkdir()
            with notes.progress.stage("load"):
                subject = load()
                data = data_for(subject, recipe, request, work)
            data.check_disjoint(notes.progress)
            notes.give(skipped)
            tuning = None
            if request.tune_s is None:
                found = lowered(subject, recipe, notes.progress, pipeline)
            else:
                tuning, found = _tuned(subject, recipe, request.tune_s, data, work, pipeline, notes)
                recipe = msgspec.structs.replace(recipe, rewrites=tuning.chosen)
                if flavours and tuning.chosen != tuning.start:
                    notes.give(["the TensorRT plans have the forms that were chosen on the CPU"])
            notes.give(found.traps)
            place = Workplace(target.name, folder, work, flavours, notes)
            make = best_artefact if request.ship_best else make_artefact
            made = make(found.graph, subject, recipe, request, data, place)
            shutil.rmtree(work)
            with notes.progress.stage("bundle"):
                manifest = _manifest(target, subject, found.rewrites, tuning, made, folder)
                publish(folder, target, manifest, force=request.force)
            return Export(target, manifest, notes.given)
        except CheckFailed as failure:
            shutil.rmtree(work, ignore_errors=True)
            if not (folder / MODEL).exists():
                raise
            kept = set_aside(folder, target)
            raise type(failure)(
                f"{failure}\nNo bundle was written; the files are in {kept}."
            ) from None


def _tuned(
    subject: Subject,
    recipe: Recipe,
    seconds: float,
    data: Data,
    work: Path,
    pipeline: Sequence[Rule[Any]] | None,
    notes: Notes,
) -> Tuned:
    def lower(rewrites: RewriteOptions) -> Lowered:
        asked = msgspec.structs.replace(recipe, rewrites=rewrites)
        return lowered(subject, asked, Progress(), pipeline)

    return tune(lower, subject, recipe, data.calibration, seconds, work, notes)


def _manifest(
    target: Path,
    subject: Subject,
    rewrites: RewriteReport,
    tuning: TuningReport | None,
    made: Artefact,
    folder: Path,
) -> Manifest:
    return manifest_of(
        target.name,
        made.recipe,
        subject,
        inputs=made.inputs,
        outputs=made.outputs,
        rewrites=rewrites,
        tuning=tuning,
        graph=made.graph,
        precision=made.precision,
        parity=made.parity,
        plans=made.plans,
        verdicts=made.verdicts,
        folder=folder,
    )
