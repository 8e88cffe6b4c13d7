"""`--ship best`: INT8 or FP8 where it is right and faster, floats where it is not."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace

import onnx_ir as ir

from sam_deploy.errors import CheckFailed, MachineError
from sam_deploy.exporter.artefact import Artefact, Workplace, make_artefact
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.request import Request
from sam_deploy.exporter.verdict import in_floats
from sam_deploy.gpu_info import find_gpu
from sam_deploy.manifest import Verdict
from sam_deploy.recipe import Precision, Recipe
from sam_deploy.reference.subject import Subject


def best_artefact(
    graph: ir.Model,
    subject: Subject,
    recipe: Recipe,
    request: Request,
    data: Data,
    place: Workplace,
) -> Artefact:
    """What `make_artefact` makes of the FP32 `graph` and `recipe`, or the same model in floats:
    where those are as fast on what runs here, or the quantized one fails a check.

    Raises:
        CheckFailed: the model in floats fails a check too.
        InputError: as `make_artefact`.
    """
    verdicts: list[Verdict] = []
    try:
        made = make_artefact(graph.clone(), subject, recipe, request, data, place)
        measured = next((verdict for verdict in made.verdicts if verdict.ship is not None), None)
        if measured is None or measured.ship in (None, recipe.precision):
            return made
        ship, verdicts = measured.ship, made.verdicts
        place.notes.give([measured.text])
    except CheckFailed as failure:
        ship = recipe.beside if recipe.is_for_cpu else _usual_floats()
        failed = f"{recipe.precision.upper()} failed its checks, so {ship.upper()} is exported"
        place.notes.give([f"{failed}: {failure}"])
    for path in place.folder.iterdir():
        if path != place.work:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    floats = in_floats(recipe, ship)
    made = make_artefact(graph, subject, floats, Request(), Data(data.validation), place)
    return replace(made, verdicts=verdicts)


def _usual_floats() -> Precision:
    """FP16 on a GPU; a CPU computes FP16 in FP32."""
    with suppress(MachineError):
        find_gpu()
        return "fp16"
    return "fp32"
