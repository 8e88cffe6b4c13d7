"""The manifest of a finished export."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx_ir as ir

from sam_deploy.bundle import file_infos
from sam_deploy.cpu_info import machine
from sam_deploy.lowering import OPSET
from sam_deploy.manifest import (
    SCHEMA_VERSION,
    GraphInfo,
    Manifest,
    PrecisionReport,
    TensorSpec,
    Verdict,
)
from sam_deploy.parity_report import ParityReport
from sam_deploy.plans import PlanInfo
from sam_deploy.recipe import Recipe
from sam_deploy.reference.subject import Subject
from sam_deploy.report import RewriteReport
from sam_deploy.runtime import require_onnxruntime
from sam_deploy.tuning import TuningReport

_PACKAGES = ("sam-deploy", "torch", "onnx", "onnx-ir", "onnxscript", "numpy", "pillow")


def manifest_of(
    name: str,
    recipe: Recipe,
    subject: Subject,
    *,
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    rewrites: RewriteReport,
    tuning: TuningReport | None,
    graph: ir.Model,
    precision: PrecisionReport,
    parity: list[ParityReport],
    plans: list[PlanInfo],
    verdicts: list[Verdict],
    folder: Path,
) -> Manifest:
    """The manifest of the files in `folder`; it holds no path of this machine."""
    operators = Counter(node.op_type for node in graph.graph)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        model=subject.info,
        weights=subject.weights,
        class_names=subject.class_names,
        inputs=inputs,
        outputs=outputs,
        preprocessing=subject.preprocessing,
        rewrites=rewrites,
        tuning=tuning,
        graph=GraphInfo(opset=OPSET, nodes=len(graph.graph), operators=dict(operators)),
        precision=precision,
        parity=parity,
        recipe=_portable(recipe),
        versions=_versions(),
        machine={**machine(), "platform": platform.platform()},
        plans=plans,
        verdicts=verdicts,
        files=file_infos(folder),
    )


def _portable(recipe: Recipe) -> Recipe:
    """The recipe without this machine's folders: file names only."""
    names = {
        field: Path(value).name
        for field in ("weights", "class_names", "calibration")
        if (value := getattr(recipe, field)) is not None
    }
    return msgspec.structs.replace(recipe, **names)


def _versions() -> dict[str, str]:
    versions = {package: version(package) for package in _PACKAGES}
    return {
        **versions,
        "onnxruntime": str(require_onnxruntime().__version__),
        "python": platform.python_version(),
    }
