"""One precision made of the FP32 graph: typed, judged, its plans built, and is it worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx_ir as ir

from sam_deploy.bundle import MODEL, QUANTIZATION
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.gate import hold, in_other_hosts, of_samples
from sam_deploy.exporter.notes import Notes
from sam_deploy.exporter.plan_gate import hold_plans
from sam_deploy.exporter.plans import build_plans
from sam_deploy.exporter.quantization_page import quantization_page
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.sensitivity import Sensitivity
from sam_deploy.exporter.tensor_specs import tensor_specs
from sam_deploy.exporter.typed import Measured, measure, write_typed
from sam_deploy.exporter.verdict import Floats, verdicts_of
from sam_deploy.manifest import PrecisionReport, TensorSpec, Verdict
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import Flavour, PlanInfo
from sam_deploy.quantization import GroupCost, SearchReport
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject


@dataclass(frozen=True)
class Workplace:
    """Where an artefact is made: the bundle's `folder`, `work` for passing files, and who is told.

    `flavours` are those that plans are built for.
    """

    name: str
    folder: Path
    work: Path
    flavours: Sequence[Flavour]
    notes: Notes


@dataclass(frozen=True)
class Artefact:
    """What stands in the bundle's folder. `recipe` is the one that makes it again."""

    recipe: Recipe
    graph: ir.Model
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    precision: PrecisionReport
    parity: list[ParityReport]
    plans: list[PlanInfo]
    verdicts: list[Verdict]


def make_artefact(
    graph: ir.Model,
    subject: Subject,
    recipe: Recipe,
    request: Request,
    data: Data,
    place: Workplace,
) -> Artefact:
    """Write `model.onnx` in the recipe's precision, its plans and reports.

    `graph` is FP32, and changed.

    Raises:
        CheckFailed: the graph, its precision, parity or a plan's audit failed.
        InputError: the calibration samples cannot be used.
    """
    notes, progress = place.notes, place.notes.progress
    measured = measure(graph, recipe, subject.islands, data, place.work, progress)
    notes.give(data.notes())
    costs: list[GroupCost] = []
    search = None
    if request.sensitivity or request.max_drop is not None:
        recipe, measured, costs, search = _searched(
            graph, subject, recipe, request, data, measured, place
        )
    floats = None
    if measured.calibrated is not None:
        floats = Floats(graph.clone(), recipe, replace(measured, calibrated=None))
    inputs = tensor_specs(graph.graph.inputs, recipe.io_dtype)
    outputs = tensor_specs(graph.graph.outputs, recipe.io_dtype)
    with progress.stage(recipe.precision):
        precision = write_typed(graph, recipe, measured, place.folder / MODEL)
    if costs:
        precision = _reported(precision, costs, search, place)
    parity = hold(subject, recipe, data.validation, inputs, outputs, place.folder, progress)
    notes.give(of_samples(data.validation, parity.samples))
    if measured.calibrated is not None:
        notes.give(in_other_hosts(place.folder / MODEL, recipe, data.validation))
    plans = build_plans(place.flavours, recipe.plans, precision, place.folder, progress)
    specs = (inputs, outputs)
    held = hold_plans(plans, subject, recipe, data.validation, specs, place.folder, progress)
    verdicts = []
    if floats is not None:
        verdicts = verdicts_of(
            floats,
            parity,
            specs,
            plans,
            subject.examples(),
            place.folder,
            place.work,
            progress,
        )
    return Artefact(recipe, graph, inputs, outputs, precision, [parity, *held], plans, verdicts)


def _searched(
    graph: ir.Model,
    subject: Subject,
    recipe: Recipe,
    request: Request,
    data: Data,
    measured: Measured,
    place: Workplace,
) -> tuple[Recipe, Measured, list[GroupCost], SearchReport | None]:
    """What each group costs, and with `max_drop` the recipe that keeps the costliest in floats."""
    assert measured.calibrated is not None
    assert data.calibration is not None
    progress = place.notes.progress
    sensitivity = Sensitivity(
        graph,
        measured.calibrated,
        measured.islands,
        data.calibration,
        place.work,
        classes=bool(subject.info.num_classes),
        batch=recipe.batch,
    )
    costs = sensitivity.costs(progress)
    if request.max_drop is None:
        return recipe, measured, costs, None
    costs, search = sensitivity.search(costs, request.max_drop, progress)
    policy = sensitivity.policy(costs)
    return (
        msgspec.structs.replace(recipe, quantization=policy),
        replace(measured, calibrated=replace(measured.calibrated, policy=policy)),
        costs,
        search,
    )


def _reported(
    precision: PrecisionReport,
    costs: list[GroupCost],
    search: SearchReport | None,
    place: Workplace,
) -> PrecisionReport:
    """`precision` with the costs in it, which go onto a page beside the model too."""
    assert precision.quantization is not None
    report = msgspec.structs.replace(precision.quantization, sensitivity=costs, search=search)
    page = quantization_page(place.name, precision.precision, report)
    (place.folder / QUANTIZATION).write_text(page, encoding="utf-8")
    return msgspec.structs.replace(precision, quantization=report)
