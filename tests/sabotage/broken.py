"""Bundles that are whole and wrong: every hash agrees, and something in them is not the model."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from sam_deploy.bundle import MANIFEST, MODEL, file_infos, read_bundle, write_manifest
from sam_deploy.cli.parity import main
from sam_deploy.errors import PrecisionError
from sam_deploy.exporter.calibration_data import Data
from sam_deploy.exporter.typed import measure, write_typed
from sam_deploy.lowering import onnx_from_module
from sam_deploy.manifest import PrecisionReport
from sam_deploy.precision import audit_precision
from sam_deploy.progress import Progress
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.rewrites import rewrite
from sam_deploy.verification import Asked, ParityResult, verify

_COPIES = itertools.count()

ON_CPU = "model.onnx on onnxruntime CPUExecutionProvider: "


def judged(bundle: Path, **asked: Any) -> ParityResult:
    """The verdict on a few samples: what is wrong here is wrong on all of them."""
    return verify(bundle, Asked(**{"limit": 8, "resume": False, **asked}))


def failures(result: ParityResult) -> list[str]:
    """Why it did not pass, which it must not have."""
    assert not result.passed
    return result.failures


def check(result: ParityResult, name: str) -> Any:
    """The check called `name`."""
    return next(check for check in result.checks if check.name == name)


def refused(capsys: Any, *argv: Any) -> str:
    """What the command says of bad input."""
    assert main([str(part) for part in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return str(err)


def typed(bundle: Path, precision: str, **samples: Any) -> Path:
    """The FP32 bundle in another precision, made by the exporter's own stages."""
    manifest = read_bundle(bundle)
    limits = {"tolerances": DEFAULT_TOLERANCES[precision], "precision": precision}
    recipe = msgspec.structs.replace(manifest.recipe, **limits)
    graph = ir.load(bundle / MODEL)
    made = Path(shutil.copytree(bundle, bundle.with_name(f"{bundle.name}-{precision}")))
    data = Data(samples["validation"], samples.get("calibration"))
    measured = measure(graph, recipe, [], data, made, Progress())
    report = write_typed(graph, recipe, measured, made / MODEL)
    operators = dict(Counter(node.op_type for node in graph.graph))
    _rewrite(
        made,
        {
            "recipe": msgspec.to_builtins(recipe),
            "precision": msgspec.to_builtins(report),
            "graph": {"nodes": len(graph.graph), "operators": operators},
        },
    )
    return made


def manifest_of(bundle: Path) -> Any:
    """The manifest as plain data."""
    return json.loads((bundle / MANIFEST).read_bytes())


def copied(bundle: Path) -> Path:
    """A copy beside it, to break."""
    return Path(shutil.copytree(bundle, bundle.with_name(f"{bundle.name}-{next(_COPIES)}")))


def with_manifest(bundle: Path, **changes: Any) -> Path:
    """A copy whose manifest says something else; a dict changes the fields that it names."""
    broken = copied(bundle)
    _rewrite(broken, changes)
    return broken


def with_model(bundle: Path, model: onnx.ModelProto, **changes: Any) -> Path:
    """A copy with another `model.onnx`, whose manifest counts its nodes and its types as they are:
    what else is wrong with it, nothing but running it shows.
    """
    broken = copied(bundle)
    onnx.save(model, broken / MODEL)
    operators = Counter(node.op_type for node in model.graph.node)
    graph = {"nodes": len(model.graph.node), "operators": dict(operators)}
    _rewrite(broken, {"graph": graph, **changes})
    _rewrite(broken, {"precision": _audited(manifest_of(broken)["precision"], model)})
    return broken


def with_file(bundle: Path, name: str, content: bytes, **changes: Any) -> Path:
    """A copy with another file, or one more, that the manifest lists."""
    broken = copied(bundle)
    (broken / name).parent.mkdir(exist_ok=True)
    (broken / name).write_bytes(content)
    _rewrite(broken, changes)
    return broken


def model_of(bundle: Path) -> onnx.ModelProto:
    """A fresh copy of its graph."""
    return onnx.load(bundle / MODEL)


def changed(bundle: Path, change: Callable[[onnx.ModelProto], Any], **changes: Any) -> Path:
    """`with_model` of the bundle's own graph, changed in place."""
    model = model_of(bundle)
    change(model)
    return with_model(bundle, model, **changes)


def lowered(module: Any, example: tuple[Any, ...], output: str) -> onnx.ModelProto:
    """What an export makes of `module` before it is typed: rewritten, then lowered."""
    static, _ = rewrite(module, example)
    graph = onnx_from_module(static, example, input_names=["input"], output_names=[output])
    return ir.to_proto(graph)


def weight(model: onnx.ModelProto, name: str) -> Any:
    """The value of the weight `name`."""
    return numpy_helper.to_array(_initializer(model, name)).copy()


def set_weight(model: onnx.ModelProto, name: str, value: Any) -> None:
    """Give the weight `name` another value, of the same type."""
    tensor = _initializer(model, name)
    given = np.asarray(value, numpy_helper.to_array(tensor).dtype)
    tensor.CopyFrom(numpy_helper.from_array(given, name))


def behind(model: onnx.ModelProto, value: str, *nodes: onnx.NodeProto) -> None:
    """Put `nodes` behind `value`: the last one's first output takes its place for all that read it.

    The first of them reads `value` and is named so in its inputs.
    """
    place = next((i + 1 for i, n in enumerate(model.graph.node) if value in n.output), 0)
    for node in model.graph.node:
        node.input[:] = [nodes[-1].output[0] if name == value else name for name in node.input]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)


def constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    """A further weight; its name."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _audited(declared: Any, model: onnx.ModelProto) -> Any:
    """What the audit says of it in the precision that the manifest declares, if it passes."""
    report = msgspec.convert(declared, PrecisionReport)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # the audit drops what a graph says of itself
    with suppress(PrecisionError):
        found = audit_precision(
            copy,
            report.precision,
            report.islands,
            report.io_dtype,
            quantization=report.quantization,
        )
        return {"types_by_op": found.types_by_op}
    return {}


def _rewrite(bundle: Path, changes: dict[str, Any]) -> None:
    data = manifest_of(bundle)
    for key, value in changes.items():
        merged = isinstance(value, dict) and isinstance(data[key], dict)
        data[key] = {**data[key], **value} if merged else value
    data["files"] = msgspec.to_builtins(file_infos(bundle))
    write_manifest(bundle, json.dumps(data).encode())
