"""Graphs of the tiny SMT and a small SAM, lowered once a process, for several test folders."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec
import onnx
import onnx_ir as ir
import torch
from conftest import TINY, golden
from weights import golden_input

from sam_deploy.architecture import Architecture
from sam_deploy.lowering import onnx_from_module
from sam_deploy.models import SAM, SMT, create_model
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites import rewrite

SIZE = (64, 96)  # not square, so that a swapped height and width shows
STAGES = ["stage1", "stage2", "stage3", "stage4"]


class Case(NamedTuple):
    """An eager module, its example inputs, its rewritten form and its outputs' names."""

    eager: torch.nn.Module
    example: tuple[Any, ...]
    static: torch.nn.Module
    outputs: list[str]


@cache
def case(kind: str = "classifier", options: RewriteOptions | None = None) -> Case:
    """`kind` is "classifier", "softmax", "features" or "sam"."""
    outputs = {"features": STAGES, "sam": ["output"]}.get(kind, ["logits"])
    if kind == "sam":
        eager: torch.nn.Module = golden(SAM(24, 4))
        example: tuple[Any, ...] = (torch.from_numpy(golden_input(1, 40, 24)), 5, 8)
    else:
        tiny = msgspec.convert(TINY, Architecture)
        eager = golden(SMT(tiny, num_classes=10, features=kind == "features"))
        if kind == "softmax":
            eager.head = torch.nn.Sequential(eager.head, torch.nn.Softmax(dim=-1))
        example = (torch.from_numpy(golden_input(1, 3, *SIZE)),)
    static, _ = rewrite(eager, example, options or RewriteOptions())
    return Case(eager, example, static, outputs)


def lower(module: Case, batch: int | None = None) -> ir.Model:
    """`module` as a graph, made anew."""
    return onnx_from_module(
        module.static,
        module.example,
        input_names=["input"],
        output_names=module.outputs,
        batch=batch,
    )


@cache
def proto_bytes(kind: str = "classifier", batch: int | None = None) -> bytes:
    """The lowered graph, FP32, as an ONNX file's bytes."""
    return ir.to_proto(lower(case(kind), batch)).SerializeToString(deterministic=True)


def proto(kind: str = "classifier", batch: int | None = None) -> onnx.ModelProto:
    """The lowered graph, FP32; a fresh one each time."""
    return onnx.load_from_string(proto_bytes(kind, batch))


def graph(kind: str = "classifier", batch: int | None = None) -> ir.Model:
    """The lowered graph as `onnx_ir` holds it; a fresh one each time."""
    return ir.from_proto(proto(kind, batch))


def smt_t() -> ir.Model:
    """The real smt_t at 224 with golden weights, lowered (FP32)."""
    eager = golden(create_model("smt_t"))
    example = (torch.from_numpy(golden_input(1, 3, 224, 224)),)
    static, _ = rewrite(eager, example, RewriteOptions())
    return lower(Case(eager, example, static, ["logits"]))
