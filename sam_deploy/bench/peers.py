"""What else there is for the same weights: PyTorch itself, the stock exports of the untouched model
on ONNX Runtime's CPU provider, and OpenVINO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sam_deploy.bench.contestant import Contestant, Run
from sam_deploy.bench.openvino_peers import openvino_contestants
from sam_deploy.bench.result import LeftOut
from sam_deploy.bench.stock_graph import make_stock_graph
from sam_deploy.bundle import read_bundle
from sam_deploy.lowering import OPSET
from sam_deploy.lowering.batch import any_batch, quiet, with_batch
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.reference import Subject
from sam_deploy.runner import Arrays
from sam_deploy.verification import Asked
from sam_deploy.verification.bundle_reference import bundle_reference


def torch_contestants(bundle: Path, asked: Asked) -> Iterator[Contestant]:
    """The model that `bundle` was made from in PyTorch: eager, and compiled by its default."""
    for name, compiled in (("torch eager", False), ("torch.compile", True)):
        yield _peer(name, partial(_make_torch, str(bundle), asked, compiled))


def export_contestants(
    subject: Subject, calibration: Iterable[Arrays], folder: Path
) -> tuple[list[Contestant], list[LeftOut]]:
    """The stock exports of `subject`, written to `folder`: TorchScript's, dynamo's, and dynamo's
    through onnxslim, onnxsim and OpenVINO, which quantizes on the batches `calibration`.
    """
    found: list[Contestant] = []
    left_out: list[LeftOut] = []

    def attempt(name: str, write: Callable[[Path], None]) -> Path | None:
        path, shown = folder / f"{len(found)}.onnx", f"{name} on cpu"
        try:
            with quiet(), torch.no_grad():
                write(path)
        except Exception as error:  # stock exporters fail in every way
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            left_out.append(LeftOut(name=shown, side="peer", reason=reason))
            return None
        found.append(_peer(shown, partial(make_stock_graph, str(path), subject.output_names)))
        return path

    attempt("TorchScript export", partial(_torchscript, subject))
    if dynamo := attempt("dynamo export", partial(export_dynamo, subject)):
        attempt("dynamo export, onnxslim", partial(_slim, dynamo))
        attempt("dynamo export, onnxsim", partial(_simplified, dynamo))
        ran, failed = openvino_contestants(dynamo, calibration, subject.output_names, folder)
        found += ran
        left_out += failed
    return found, left_out


def _peer(name: str, make: Callable[[], Run]) -> Contestant:
    return Contestant(name, "peer", "fp32", DEFAULT_TOLERANCES["fp32"], make)


def _make_torch(bundle: str, asked: Asked, compiled: bool) -> Run:
    subject = bundle_reference(read_bundle(Path(bundle)), asked)
    if compiled:
        subject.module.compile(dynamic=False)
    return subject.run


def _torchscript(subject: Subject, path: Path) -> None:
    axes = {name: {0: "batch"} for name in (*subject.input_names, *subject.output_names)}
    torch.onnx.export(
        subject.module, subject.example_inputs, path, dynamo=False, opset_version=OPSET,
        dynamic_axes=axes, **_names(subject),
    )  # fmt: skip


def export_dynamo(subject: Subject, path: Path) -> None:
    """Write PyTorch's own export of the untouched model, of any batch, to `path`."""
    inputs = with_batch(subject.example_inputs, 2)  # 1 would be taken for a constant
    with quiet(), torch.no_grad():
        torch.onnx.export(
            subject.module, inputs, path, dynamo=True, opset_version=OPSET,
            dynamic_shapes=any_batch(inputs), verbose=False, **_names(subject),
        )  # fmt: skip


def _slim(dynamo: Path, path: Path) -> None:
    import onnx
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(dynamo)), path)


def _simplified(dynamo: Path, path: Path) -> None:
    import onnx
    import onnxsim

    simplified, agrees = onnxsim.simplify(onnx.load(dynamo))
    if not agrees:
        raise ValueError("onnxsim's own check says that its graph is another")
    onnx.save(simplified, path)


def _names(subject: Subject) -> dict[str, Any]:
    return {"input_names": subject.input_names, "output_names": subject.output_names}
