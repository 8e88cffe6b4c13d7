"""Whether FP16 holds every value of the graph on these samples: a CPU would not show it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from sam_deploy.bundle import MODEL
from sam_deploy.errors import BundleError
from sam_deploy.manifest import Manifest
from sam_deploy.parity import PARITY_BATCH, Samples, array_samples
from sam_deploy.parity.batches import chosen_rows
from sam_deploy.progress import Progress
from sam_deploy.runtime import OnnxRunner
from sam_deploy.verification.result import Check

NAME = "FP16 range"
SAMPLES = 32


def overflow_check(
    folder: Path, manifest: Manifest, samples: Samples, progress: Progress
) -> Check | None:
    """The largest |x| of every FP16 value of the bundle's ONNX, on up to 32 of the samples, spread
    over all.

    None of a bundle in FP32. What the graph says of its own types is not believed.
    """
    if manifest.recipe.precision == "fp32":
        return None
    try:
        import onnx
        import onnx_ir as ir

        from sam_deploy.precision.fp16 import FP16_MAX
        from sam_deploy.precision.ranges import largest_values, write_instrumented
    except ModuleNotFoundError as error:
        detail = f"not looked at: {error.name} is not installed (pip install 'sam-deploy[export]')"
        return Check(name=NAME, passed=None, detail=detail)

    proto = onnx.load(folder / MODEL)
    del proto.graph.value_info[:]
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    halves = {value.name for value in values if value.dtype == ir.DataType.FLOAT16}
    with (
        tempfile.TemporaryDirectory() as work,
        progress.stage("range", min(SAMPLES, samples.count)) as advance,
    ):
        path = Path(work) / MODEL
        write_instrumented(model, path)
        try:
            runner = OnnxRunner(path, in_file_order=True)
        except BundleError as error:
            return Check(name=NAME, passed=False, detail=f"it cannot be measured: {error}")
        types = {spec.name: spec.dtype for spec in manifest.inputs}
        rows = chosen_rows(samples, SAMPLES)
        chosen = {name: np.concatenate([row[name] for row in rows]) for name in types}
        batches = array_samples(samples.kind, chosen).filled(
            manifest.recipe.batch, PARITY_BATCH, advance
        )
        typed = ({name: a.astype(types[name]) for name, a in batch.items()} for batch in batches)
        reached = {n: x for n, x in largest_values(runner, typed).items() if n in halves}
    if not reached:
        return Check(name=NAME, passed=True, detail="no value is in FP16")
    name = max(reached, key=lambda n: reached[n])
    what = f"the largest |x| in FP16 is {reached[name]:.3g} at {name}"
    if not reached[name] <= FP16_MAX:
        return Check(
            name=NAME,
            passed=False,
            detail=f"{what}; FP16 ends at {FP16_MAX:g}, so a GPU gives infinity there. Export "
            "again with images like these as --data: the module then becomes an FP32 island",
        )
    return Check(name=NAME, passed=True, detail=f"{what}, of {FP16_MAX:g}")
