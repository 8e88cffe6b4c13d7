"""What a bundle says of itself, held against what it holds; nothing of it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sam_deploy.bundle import MODEL
from sam_deploy.class_names import imagenet_names
from sam_deploy.errors import CheckFailed, SamDeployError
from sam_deploy.manifest import Manifest, TensorSpec
from sam_deploy.reference import Subject
from sam_deploy.runtime import OnnxRunner
from sam_deploy.runtime.passport import stale
from sam_deploy.verification.result import Check


def structure_checks(folder: Path, manifest: Manifest, subject: Subject) -> list[Check]:
    """One check for each thing that the manifest declares; none of them runs the model."""
    return [
        _checked("inputs and outputs", lambda: _ends(folder, manifest)),
        _checked("preprocessing", lambda: _preprocessing(manifest, subject)),
        _checked("class names", lambda: _class_names(manifest)),
        _checked("precision", lambda: _precision(folder, manifest)),
        _checked("graph", lambda: _graph(folder, manifest)),
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
    return "as declared"


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} {spec.dims}"


def _preprocessing(manifest: Manifest, subject: Subject) -> str:
    if manifest.preprocessing != subject.preprocessing:
        raise CheckFailed(
            f"services are told {manifest.preprocessing}, the model was exported with "
            f"{subject.preprocessing}"
        )
    return "as the recipe and the model have it" if manifest.preprocessing else "none"


def _class_names(manifest: Manifest) -> str:
    names = tuple(manifest.class_names)
    if manifest.recipe.class_names is None and not manifest.recipe.is_own:
        if names and names != imagenet_names():
            raise CheckFailed("they are not ImageNet's, and the recipe names no others")
        return "ImageNet's" if names else "none"
    return f"{len(names)}, from {manifest.recipe.class_names or 'the export'}"


def _precision(folder: Path, manifest: Manifest) -> str:
    import onnx

    from sam_deploy.precision import audit_precision

    declared = manifest.precision
    if declared.precision != manifest.recipe.precision:
        raise CheckFailed(
            f"the manifest says {declared.precision}, its recipe {manifest.recipe.precision}"
        )
    found = audit_precision(
        onnx.load(folder / MODEL),
        declared.precision,
        declared.islands,
        declared.io_dtype,
        quantization=declared.quantization,
    )
    if found.types_by_op != declared.types_by_op:
        raise CheckFailed(
            f"{MODEL} computes in {found.types_by_op}, the manifest says {declared.types_by_op}"
        )
    return f"{declared.precision}, audited anew"


def _graph(folder: Path, manifest: Manifest) -> str:
    import onnx

    nodes = onnx.load(folder / MODEL, load_external_data=False).graph.node
    operators = dict(Counter(node.op_type for node in nodes))
    declared = manifest.graph
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
