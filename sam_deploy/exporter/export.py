"""Recipe in, bundle out: every stage in its order, nothing left behind but what is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from sam_deploy.bundle import MODEL, bundle_path, check_target, publish, set_aside, staged
from sam_deploy.class_names import names_for
from sam_deploy.errors import CheckFailed, GraphSpecError, InputError
from sam_deploy.exporter.gate import PARITY_BATCH, hold
from sam_deploy.exporter.manifest_of import manifest_of
from sam_deploy.exporter.subject import Subject, subject_from_recipe
from sam_deploy.lowering import check_graph, onnx_from_module
from sam_deploy.manifest import LargestValue, Manifest, PrecisionReport
from sam_deploy.parity import Samples, folder_samples, normal_samples, synthetic_samples
from sam_deploy.precision import (
    audit_precision,
    check_ranges,
    largest_values,
    to_fp16,
    write_instrumented,
)
from sam_deploy.progress import Progress
from sam_deploy.recipe import Recipe
from sam_deploy.rewrites import rewrite
from sam_deploy.runtime import OnnxRunner, require_onnxruntime

BUILT_IN_SAMPLES = 33  # with a batch of 4 the last one is a batch of 1


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
        CheckFailed: a rule, the graph, its precision or parity failed. A model that was written by
            then is kept aside in `out/name.rejected`, as the message says.
    """
    progress = progress or Progress()
    target = bundle_path(out, recipe.name if name is None else name)
    check_target(target, force=force)
    require_onnxruntime()
    with staged(target) as folder:
        try:
            return _export(recipe, target, folder, force, data, progress)
        except CheckFailed as failure:
            if not (folder / MODEL).exists():
                raise
            kept = set_aside(folder, target)
            raise type(failure)(
                f"{failure}\nNo bundle was written; the files are in {kept}."
            ) from None


def _export(
    recipe: Recipe, target: Path, folder: Path, force: bool, data: Path | None, progress: Progress
) -> Export:
    with progress.stage("load"):
        subject = subject_from_recipe(recipe)
        class_names = _class_names(recipe, subject)
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
    largest = None
    if recipe.precision == "fp16":
        largest = _largest(graph, recipe, subject, samples, folder, progress)
    with progress.stage(recipe.precision):
        precision = _typed(graph, recipe, subject, folder / MODEL, largest)
    inputs, outputs = subject.tensor_specs(recipe)
    report = hold(subject, recipe, samples, inputs, outputs, folder, progress)
    with progress.stage("bundle"):
        manifest = manifest_of(
            target.name,
            recipe,
            subject,
            class_names=class_names,
            inputs=inputs,
            outputs=outputs,
            rewrites=rewrites,
            graph=graph,
            precision=precision,
            parity=report,
            folder=folder,
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


def _largest(
    graph: ir.Model,
    recipe: Recipe,
    subject: Subject,
    samples: Samples,
    folder: Path,
    progress: Progress,
) -> LargestValue:
    """Hold what FP16 would have to carry against its range, on the samples, in FP32."""
    path = folder / "ranges.onnx"
    with progress.stage("ranges", samples.count) as advance:
        write_instrumented(graph, path)
        runner = OnnxRunner(path)
        path.unlink()

        def batches() -> Iterator[npt.NDArray[np.float32]]:
            for x in samples.batches(recipe.batch or PARITY_BATCH):
                yield np.resize(x, (recipe.batch, *x.shape[1:])) if recipe.batch else x
                advance(len(x))

        return check_ranges(graph, largest_values(runner, "input", batches()), subject.islands)


def _typed(
    graph: ir.Model, recipe: Recipe, subject: Subject, path: Path, largest: LargestValue | None
) -> PrecisionReport:
    """Give the graph its types, write it, and audit what was written."""
    if recipe.precision == "fp16":
        to_fp16(graph, subject.islands, recipe.io_dtype)
    ir.save(graph, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphSpecError(f"the ONNX checker refuses the exported graph: {error}") from None
    return audit_precision(
        onnx.load(path), recipe.precision, subject.islands, recipe.io_dtype, largest
    )
