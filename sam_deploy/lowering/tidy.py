"""Remove what the exporter leaves behind: pairs of opposite Transposes, duplicates, dead nodes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def tidy(model: ir.Model) -> None:
    """Simplify `model` in place without changing what it computes."""
    ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(size_limit=1 << 62),
    )(model)
    cancel_transposes(model.graph)
    # Last: nodes become equal once their constants are shared and what stood before them is gone.
    ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.TopologicalSortPass(),
    )(model)


def cancel_transposes(graph: ir.Graph) -> None:
    """transpose_q(transpose_p(x)) = x where q inverts p: what read the outer one reads x."""
    outputs = set(graph.outputs)
    for outer in list(graph):
        inner = outer.inputs[0].producer() if outer.op_type == "Transpose" else None  # type: ignore[union-attr]
        if inner is None or inner.op_type != "Transpose" or outer.outputs[0] in outputs:
            continue
        p, q = permutation(inner), permutation(outer)
        source = inner.inputs[0]
        if source is not None and p and q and [p[axis] for axis in q] == list(range(len(p))):
            ir.convenience.replace_all_uses_with(outer.outputs[0], source)


def permutation(node: ir.Node) -> list[int]:
    """The `perm` of a Transpose; empty where it has none (the exporter always writes it)."""
    perm = node.attributes.get("perm")
    return list(perm.as_ints()) if perm is not None else []
