"""What a bundle says of itself, held against what it holds; nothing of it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sam_deploy.bundle import MODEL
from sam_deploy.class_names import names_for
from sam_deploy.errors import CheckFailed, SamDeployError
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.recipe import QUANTIZED
from sam_deploy.reference import Subject
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.passport import stale
from sam_deploy.verification.constants import check_constants
from sam_deploy.verification.result import Check
from sam_deploy.verification.scales import check_scales


def structure_checks(folder: Path, manifest: Manifest, subject: Subject) -> list[Check]:
    """One check for each thing that the manifest declares; none of them runs the model."""
    return [
        _checked("inputs and outputs", lambda: _ends(folder, manifest)),
        _checked("model", lambda: _model(manifest, subject)),
        _checked("preprocessing", lambda: _preprocessing(manifest, subject)),
        _checked("class names", lambda: _class_names(manifest)),
        _checked("precision", lambda: _precision(folder, manifest)),
        _checked("graph", lambda: _graph(folder, manifest)),
        _checked("constants", lambda: check_constants(_loaded(folder), subject)),
        *([_checked("plans", lambda: _plans(manifest))] if manifest.plans else []),
    ]


def _checked(name: str, look: Callable[[], str]) -> Check:
    """`look` says what was found, or raises CheckFailed."""
    try:
        return Check(name=name, passed=True, detail=look())
    except ModuleNotFoundError as error:
        lacking = f"not looked at: {error.name} is not installed (pip install 'sam-deploy[export]')"
        return Check(name=name, passed=None, detail=lacking)
    except SamDeployError as failure:
        return Check(name=name, passed=False, detail=str(failure))


def _ends(folder: Path, manifest: Manifest) -> str:
    runner = OnnxRunner(folder / MODEL)
    for declared, found in ((manifest.inputs, runner.inputs), (manifest.outputs, runner.outputs)):
        if [(spec.name, spec.dtype, spec.dims) for spec in declared] != found:
            raise CheckFailed(
                f"{MODEL} has {'; '.join(f'{t.name} {t.dtype} {t.dims}' for t in found)}, its "
                f"manifest declares {'; '.join(map(_shown, declared))}"
            )
    wanted = manifest.recipe.batch
    for batch in (spec.dims[0] for spec in manifest.inputs):
        if batch != wanted if wanted else not isinstance(batch, str):
            raise CheckFailed(f"{MODEL} has a batch of {batch}, its recipe {wanted or 'any'}")
    return "as declared"


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {spec.dims}"


def _model(manifest: Manifest, subject: Subject) -> str:
    if not subject.own and manifest.model != subject.info:
        raise CheckFailed(f"services are told {manifest.model}, the model is {subject.info}")
    return f"{manifest.model.kind} of {manifest.model.parameters} parameters"


def _preprocessing(manifest: Manifest, subject: Subject) -> str:
    if manifest.preprocessing != subject.preprocessing:
        raise CheckFailed(
            f"services are told {manifest.preprocessing}, the model was exported with "
            f"{subject.preprocessing}"
        )
    return "as the recipe and the model have it" if manifest.preprocessing else "none"


def _class_names(manifest: Manifest) -> str:
    names, file = tuple(manifest.class_names), manifest.recipe.class_names
    if file is None and not manifest.recipe.is_own:
        if names != names_for(manifest.model.num_classes or 0, None):
            raise CheckFailed("they are not ImageNet's, and the recipe names no others")
        return "ImageNet's" if names else "none"
    if file is not None and not names:
        raise CheckFailed(f"there are none, and the recipe takes them from {file}")
    return f"{len(names)}, from {file or 'the export'}"


def _precision(folder: Path, manifest: Manifest) -> str:
    from sam_deploy.precision import audit_precision

    declared, recipe = manifest.precision, manifest.recipe
    for said, wanted in (
        (declared.precision, recipe.precision),
        (f"{declared.io_dtype} at its ends", f"{recipe.io_dtype} at its ends"),
    ):
        if said != wanted:
            raise CheckFailed(f"the manifest says {said}, its recipe {wanted}")
    quantization = declared.quantization
    if declared.precision in QUANTIZED and not (quantization and quantization.layers):
        raise CheckFailed(f"no layer is in {declared.precision}")
    model = _loaded(folder)
    found = audit_precision(
        model,
        declared.precision,
        declared.islands,
        declared.io_dtype,
        quantization=quantization,
    )
    _check_islands(model, manifest)
    if quantization is not None:
        check_scales(model, quantization)
    if found.types_by_op != declared.types_by_op:
        raise CheckFailed(
            f"{MODEL} computes in {found.types_by_op}, the manifest says {declared.types_by_op}"
        )
    return f"{declared.precision}, audited anew"


def _check_islands(model: Any, manifest: Manifest) -> None:
    """An audit believes what is listed as an island: all of a model may be."""
    import onnx
    import onnx_ir as ir

    from sam_deploy.precision import check_share

    if manifest.precision.islands and manifest.precision.precision != "fp32":
        graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
        check_share(graph, manifest.precision.islands, manifest.recipe.allow_islands)


def _loaded(folder: Path) -> Any:
    import onnx

    try:
        return onnx.load(folder / MODEL)
    except Exception as error:  # protobuf and ONNX raise their own
        raise CheckFailed(f"{MODEL} cannot be read: {error}") from None


def _graph(folder: Path, manifest: Manifest) -> str:
    model, declared = _loaded(folder), manifest.graph
    opsets = {one.domain or "ai.onnx": one.version for one in model.opset_import}
    if opsets.get("ai.onnx") != declared.opset:
        raise CheckFailed(f"{MODEL} has opset {opsets}, the manifest says {declared.opset}")
    nodes = model.graph.node
    operators = dict(Counter(node.op_type for node in nodes))
    if operators != declared.operators or len(nodes) != declared.nodes:
        differing = {
            name: (operators.get(name, 0), declared.operators.get(name, 0))
            for name in operators.keys() | declared.operators.keys()
            if operators.get(name, 0) != declared.operators.get(name, 0)
        }
        shown = ", ".join(f"{name} {a} for {b}" for name, (a, b) in sorted(differing.items()))
        raise CheckFailed(
            f"{MODEL} has {len(nodes)} nodes, the manifest says {declared.nodes} ({shown})"
        )
    return f"{len(nodes)} nodes, as declared"


def _plans(manifest: Manifest) -> str:
    wrong = [f"{plan.file} was {why}" for plan in manifest.plans if (why := stale(plan, manifest))]
    if wrong:
        raise CheckFailed(f"{'; '.join(wrong)}: run sam-export --rebuild")
    return f"{len(manifest.plans)}, built from this {MODEL}"
