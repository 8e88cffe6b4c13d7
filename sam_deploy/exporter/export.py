"""Recipe in, bundle out: every stage in its order, nothing left behind but what is said."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx
import onnx_ir as ir

from sam_deploy.bundle import (
    MODEL,
    PARITY,
    bundle_path,
    check_target,
    file_infos,
    publish,
    set_aside,
    staged,
)
from sam_deploy.class_names import names_for
from sam_deploy.errors import CheckFailed, GraphSpecError, InputError
from sam_deploy.exporter.subject import Subject, subject_from_recipe
from sam_deploy.lowering import OPSET, check_graph, onnx_from_module
from sam_deploy.manifest import SCHEMA_VERSION, GraphInfo, Manifest, ParityReport, PrecisionReport
from sam_deploy.parity import (
    Samples,
    folder_samples,
    measure_parity,
    normal_samples,
    synthetic_samples,
)
from sam_deploy.precision import audit_precision, to_fp16
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.report import RewriteReport
from sam_deploy.rewrites import rewrite
from sam_deploy.runtime import OnnxRunner, require_onnxruntime

BUILT_IN_SAMPLES = 33  # with a batch of 4 the last one is a batch of 1
PARITY_BATCH = 4
_PACKAGES = ("sam-deploy", "torch", "onnx", "onnx-ir", "onnxscript", "numpy", "pillow")


@dataclass(frozen=True)
class Export:
    """A finished export: where the bundle is and what its manifest says."""

    bundle: Path
    manifest: Manifest


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

    Parity is measured on the images under `data`, else on a built-in set. `force` replaces a
    bundle that is there.

    Raises:
        InputError: the target is taken; weights, images or class names cannot be used.
        MachineError: onnxruntime, which parity needs, is not installed.
        CheckFailed: a rule, the graph, its precision or parity failed. What parity refused is kept
            aside in `out/name.rejected`, as the message says.
    """
    progress = progress or Progress()
    target = bundle_path(out, recipe.name if name is None else name)
    check_target(target, force=force)
    require_onnxruntime()
    with staged(target) as folder:
        return _export(recipe, target, folder, force, data, progress)


def _export(
    recipe: Recipe, target: Path, folder: Path, force: bool, data: Path | None, progress: Progress
) -> Export:
    with progress.stage("load"):
        subject = subject_from_recipe(recipe)
        names = _class_names(recipe, subject)
        samples = _samples(subject, data)
    with progress.stage("rewrite"):
        module, rewrites = rewrite(subject.module, subject.example_inputs, recipe.rewrites)
    with progress.stage("lower"):
        graph = onnx_from_module(
            module,
            subject.example_inputs,
            input_names=["input"],
            output_names=subject.output_names,
            batch=recipe.batch,
        )
        check_graph(graph)
    with progress.stage(recipe.precision):
        precision = _typed(graph, recipe, subject, folder / MODEL)
    report = _parity(subject, recipe, samples, folder, target, progress)
    with progress.stage("bundle"):
        manifest = _manifest(
            target.name, recipe, subject, names, rewrites, graph, precision, report, folder
        )
        publish(folder, target, manifest, force=force)
    return Export(target, manifest)


def _class_names(recipe: Recipe, subject: Subject) -> list[str]:
    classes = subject.info.num_classes
    if not classes:
        if recipe.class_names:
            raise InputError("class names need a model with classes; this one has none.")
        return []
    return list(names_for(classes, Path(recipe.class_names) if recipe.class_names else None))


def _samples(subject: Subject, data: Path | None) -> Samples:
    if subject.preprocessing is None:
        if data is not None:
            raise InputError("sam maps tokens, not images: leave --data out.")
        return normal_samples(BUILT_IN_SAMPLES, *subject.sample_shape)
    if data is None:
        return synthetic_samples(BUILT_IN_SAMPLES, subject.preprocessing)
    return folder_samples(data, subject.preprocessing)


def _typed(graph: ir.Model, recipe: Recipe, subject: Subject, path: Path) -> PrecisionReport:
    """Give the graph its types, write it, and audit what was written."""
    if recipe.precision == "fp16":
        to_fp16(graph, subject.islands, recipe.io_dtype)
    ir.save(graph, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphSpecError(f"the ONNX checker refuses the exported graph: {error}") from None
    return audit_precision(onnx.load(path), recipe.precision, subject.islands, recipe.io_dtype)


def _parity(
    subject: Subject,
    recipe: Recipe,
    samples: Samples,
    folder: Path,
    target: Path,
    progress: Progress,
) -> ParityReport:
    inputs, outputs = subject.tensor_specs(recipe)
    try:
        with progress.stage("parity", samples.count) as advance:
            report = measure_parity(
                OnnxRunner(folder / MODEL),
                subject.run,
                samples,
                artefact=MODEL,
                inputs=inputs,
                outputs=outputs,
                classes=bool(subject.info.num_classes),
                tolerances=recipe.tolerances,
                batch=recipe.batch or PARITY_BATCH,
                progress=advance,
            )
    except CheckFailed as failure:
        kept = set_aside(folder, target)
        raise CheckFailed(f"{failure}. No bundle was written; the files are in {kept}.") from None
    encoded = msgspec.json.format(msgspec.json.encode(report), indent=1)
    (folder / PARITY).write_bytes(encoded + b"\n")
    if not report.passed:
        kept = set_aside(folder, target)
        reasons = "\n  ".join(report.failures)
        raise CheckFailed(
            f"{MODEL} is not close enough to PyTorch on {report.samples} {report.data} samples:\n"
            f"  {reasons}\nNo bundle was written; the files and {PARITY} are in {kept}."
        )
    return report


def _manifest(
    name: str,
    recipe: Recipe,
    subject: Subject,
    class_names: list[str],
    rewrites: RewriteReport,
    graph: ir.Model,
    precision: PrecisionReport,
    parity: ParityReport,
    folder: Path,
) -> Manifest:
    inputs, outputs = subject.tensor_specs(recipe)
    operators = Counter(node.op_type for node in graph.graph)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        model=subject.info,
        weights=subject.weights,
        class_names=class_names,
        inputs=inputs,
        outputs=outputs,
        preprocessing=subject.preprocessing,
        rewrites=rewrites,
        graph=GraphInfo(opset=OPSET, nodes=len(graph.graph), operators=dict(operators)),
        precision=precision,
        parity=[parity],
        recipe=_portable(recipe),
        versions=_versions(),
        files=file_infos(folder),
    )


def _portable(recipe: Recipe) -> Recipe:
    """The recipe without this machine's folders: file names only."""
    names = {
        field: Path(value).name
        for field in ("weights", "class_names")
        if (value := getattr(recipe, field)) is not None
    }
    return msgspec.structs.replace(recipe, **names)


def _versions() -> dict[str, str]:
    versions = {package: version(package) for package in _PACKAGES}
    return {
        **versions,
        "onnxruntime": str(require_onnxruntime().__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
