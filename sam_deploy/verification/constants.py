"""Constants that are no weights: a LayerNorm's epsilon, and which GELU it is.

A wrong one changes less than a precision may, so it is read from the graph, not measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from sam_deploy.errors import CheckFailed
from sam_deploy.reference import Subject


def check_constants(model: Any, subject: Subject) -> str:
    """Hold the nodes of the ONNX `model` against the modules that they are named after.

    Raises:
        CheckFailed: a node has another constant than its module, or a module of ours has no node.
    """
    modules = {
        path: part
        for path, part in subject.module.named_modules()
        if isinstance(part, nn.LayerNorm | nn.GELU)
    }
    missing = set() if subject.own else set(modules)
    wrong, seen = [], 0
    for node in model.graph.node:
        path = node.name.rpartition("/")[0]
        found, expected = _in_graph(node), _in_module(modules.get(path))
        if found is None or expected is None or found[0] != expected[0]:
            continue
        seen += 1
        missing.discard(path)
        if found != expected:
            wrong.append(f"{node.name} has {' '.join(found)}, PyTorch has {expected[1]}")
    wrong += [f"{path} is not in the graph" for path in sorted(missing)]
    if wrong:
        raise CheckFailed(f"{'; '.join(wrong[:3])} ({len(wrong)} in all)")
    return f"{seen} epsilons and kinds of GELU, as PyTorch has them"


def _in_graph(node: Any) -> tuple[str, str] | None:
    from onnx.helper import get_attribute_value

    given = {a.name: get_attribute_value(a) for a in node.attribute}
    if node.op_type == "LayerNormalization":
        return "epsilon", str(np.float32(given.get("epsilon", 1e-5)))
    if node.op_type == "Gelu":
        return "approximate", given.get("approximate", b"none").decode()
    return None


def _in_module(part: nn.Module | None) -> tuple[str, str] | None:
    if isinstance(part, nn.LayerNorm):
        return "epsilon", str(np.float32(part.eps))
    if isinstance(part, nn.GELU):
        return "approximate", part.approximate
    return None
