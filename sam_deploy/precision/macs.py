"""How many multiply-adds a node does, for one sample: what an island costs."""

from __future__ import annotations

import math
import re

import onnx_ir as ir


def multiply_adds(node: ir.Node) -> int:
    """Of a convolution, matrix product or Gemm, at batch 1; 0 for everything else."""
    output = sizes(node.outputs[0])
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(sizes(node.inputs[1])[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(sizes(node.inputs[0])) * math.prod(sizes(node.inputs[1])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        inner = sizes(node.inputs[0])
        transposed = node.attributes.get("transA")
        first = transposed is not None and bool(transposed.as_int())
        return math.prod(output) * (inner[0 if first else -1] if inner else 1)
    return 0


def sizes(value: ir.Value | None) -> list[int]:
    """The sizes of `value`; of a symbolic one ("49*batch") its factors that are numbers."""
    if value is None or value.shape is None:
        return []
    return [
        size if isinstance(size, int) else math.prod(map(int, re.findall(r"\b\d+\b", str(size))))
        for size in value.shape
    ]
