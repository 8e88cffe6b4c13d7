"""The plans of an export: which are wanted, and those that were built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sam_deploy.bundle import MODEL
from sam_deploy.engines import chosen, plan_from_onnx
from sam_deploy.errors import MachineError
from sam_deploy.exporter.request import Request
from sam_deploy.gpu_info import find_gpu
from sam_deploy.manifest import PrecisionReport
from sam_deploy.plans import Flavour, PlanInfo, PlanOptions
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe


def flavours_for(recipe: Recipe, request: Request) -> tuple[list[Flavour], list[str]]:
    """The TensorRT flavours that this machine builds for `recipe`, and what "auto" skips and why.

    Raises:
        MachineError: a flavour that was asked for is not here, or what is best was asked for and
            no plan can be timed here.
        InputError: the target GPUs are unknown, or cannot compute in this precision.
    """
    if recipe.is_for_cpu:
        return [], []
    flavours, skipped = chosen(
        recipe.plans.engines,
        precision=recipe.precision,
        compute_capabilities=recipe.plans.compute_capabilities,
    )
    if flavours and request.ship_best:
        try:
            find_gpu()
        except MachineError as lacking:
            raise MachineError(
                f"--ship best times the plans, and {lacking}. Run it on the GPU to be deployed on, "
                "or judge by ONNX Runtime on this machine with --engine none."
            ) from None
    return flavours, [f"no {flavour} plan: {reason}" for flavour, reason in skipped.items()]


def build_plans(
    flavours: Sequence[Flavour],
    options: PlanOptions,
    precision: PrecisionReport,
    folder: Path,
    progress: Progress,
) -> list[PlanInfo]:
    """Build a plan of `model.onnx` in `folder` for each flavour.

    Raises:
        CheckFailed: TensorRT refuses the graph, or would compute in another precision.
        InputError: the target GPUs are unknown, or cannot compute in this precision.
    """
    return [
        plan_from_onnx(folder / MODEL, folder, flavour, options, precision, progress=progress)
        for flavour in flavours
    ]
