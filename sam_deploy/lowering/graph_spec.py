"""The written spec of the graph that an export may contain, and its check.

A static graph of SMT needs these operators and no others. Whatever else appears (a Shape, a
Gather, a Cast) is a runtime size or a precision that slipped in, and stops the export. The network
that a SAM module was pasted into may hold any standard operator but control flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from sam_deploy.errors import GraphSpecError
from sam_deploy.lowering.tidy import permutation

ALLOWED_OPS = frozenset(
    {
        "Add",
        "Concat",
        "Conv",
        "Gelu",
        "Gemm",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Softmax",
        "Split",
        "Transpose",
    }
)

# The changes of axes that mean something: anything else is a shuffle that should be in the weights.
ALLOWED_PERMUTATIONS = {
    (0, 2, 3, 1): "image to tokens",
    (0, 3, 1, 2): "tokens to image",
}
PERMUTATIONS_IN_ATTENTION = {  # in a module that holds a Softmax
    (0, 1, 3, 2): "within a head",
    (0, 2, 1, 3): "heads beside tokens",
}

ALLOWED_RESHAPES = {
    (3, 4): "the module's own tokens to a grid",
    (4, 3): "a grid to the module's own tokens",
    (4, 2): "tokens to rows of a Gemm",
    (2, 4): "rows of a Gemm to tokens",
    (3, 2): "the module's own tokens to rows of a Gemm",
    (2, 3): "rows of a Gemm to the module's own tokens",
}

RESHAPES_IN_ATTENTION = {(4, 4): "channels to heads, or back"}

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
_STANDARD = ("", "ai.onnx")

MAX_BYTES = 2**31  # protobuf's limit for one file


def check_graph(model: ir.Model, static: Sequence[str] = ("",)) -> None:
    """Hold `model` (FP32, before any precision is applied) against the spec.

    `static` are the paths of the modules that were rewritten ('' is the whole network): what is
    below them must be SMT's static graph, what is beside them a graph without control flow.

    Raises:
        GraphSpecError: naming every node that the spec does not allow, by module, and why.
    """
    attention = {_module(node) for node in model.graph if node.op_type == "Softmax"}
    problems = [
        f"{node.name}: {problem}"
        for node in model.graph
        if (
            problem := _problem(node, _module(node) in attention)
            if _below(_module(node), static)
            else _foreign_problem(node)
        )
        is not None
    ]
    problems += _stored_twice(model.graph)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
    if size >= MAX_BYTES:
        problems.append(f"its weights take {size} bytes; one file holds less than {MAX_BYTES}")
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise GraphSpecError(
            f"the exported graph is not the static graph it should be:\n  {shown}{more}\n"
            "Either a module was not recognised (see the rewrite report), or this is a bug of "
            "ours: please report it with these lines."
        )


def _module(node: ir.Node) -> str:
    return (node.name or "").rpartition("/")[0]


def _below(module: str, paths: Sequence[str]) -> bool:
    return any(path in ("", module) or module.startswith(path + ".") for path in paths)


def _foreign_problem(node: ir.Node) -> str | None:
    if node.domain not in _STANDARD:
        return f"{node.domain}.{node.op_type} is no standard operator: no other runtime has it"
    if node.op_type in CONTROL_FLOW:
        return f"{node.op_type} is control flow: the graph would depend on the data"
    return None


def _problem(node: ir.Node, in_attention: bool) -> str | None:
    if node.domain not in _STANDARD or node.op_type not in ALLOWED_OPS:
        return f"{node.domain or 'ai.onnx'}.{node.op_type} is not an allowed operator"
    check = _CHECKS.get(node.op_type)
    return check(node, in_attention) if check else None


def _transpose(node: ir.Node, in_attention: bool) -> str | None:
    perm = tuple(permutation(node))
    if perm in ALLOWED_PERMUTATIONS or (in_attention and perm in PERMUTATIONS_IN_ATTENTION):
        return None
    return f"permutes axes by {perm}: not between tokens, images and attention heads"


def _reshape(node: ir.Node, in_attention: bool) -> str | None:
    source, shape = node.inputs[0], node.inputs[1]
    if shape is None or shape.const_value is None:
        return "reshapes to sizes computed at run time"
    if source is None or source.shape is None:
        return "reshapes a value of unknown rank"
    target = shape.const_value.numpy().tolist()
    ranks = (len(source.shape), len(target))
    if ranks not in ALLOWED_RESHAPES and not (in_attention and ranks in RESHAPES_IN_ATTENTION):
        return f"reshapes {source.shape} to {target}: not between tokens, images and heads"
    return None


def _layer_norm(node: ir.Node, _: bool) -> str | None:
    stash = node.attributes.get("stash_type")
    if stash is not None and stash.as_int() != ir.DataType.FLOAT.value:
        return f"computes in type {stash.as_int()}, expected FP32 (stash_type 1)"
    return None


_CHECKS: dict[str, Callable[[ir.Node, bool], str | None]] = {
    "LayerNormalization": _layer_norm,
    "Reshape": _reshape,
    "Transpose": _transpose,
}


def _stored_twice(graph: ir.Graph) -> list[str]:
    """Weights of more than a thousand elements with the same values under two names."""
    seen: dict[tuple[object, ...], str] = {}
    problems = []
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.size <= 1000:
            continue
        key = (tensor.dtype, tuple(tensor.shape), hash(tensor.tobytes()))
        if key in seen:
            problems.append(f"weight {name} is stored twice: it equals {seen[key]}")
        seen.setdefault(key, name)
    return problems
