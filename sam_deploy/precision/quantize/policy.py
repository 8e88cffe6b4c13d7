"""Which layers are quantized: the recipe's policy applied to a graph."""

from __future__ import annotations

from collections.abc import Sequence

from sam_deploy.errors import PrecisionError
from sam_deploy.precision.islands import Pinned, is_in
from sam_deploy.precision.quantize.layers import Layer
from sam_deploy.quantization import Quantization

_WITH_INTEGERS = ("Conv", "Gemm", "MatMul")  # on a CPU


def layers_to_quantize(
    layers: Sequence[Layer], policy: Quantization, islands: Sequence[Pinned] = ()
) -> list[Layer]:
    """Those of `layers` that `policy` quantizes: by kind, unless a path says otherwise.

    Raises:
        PrecisionError: a path of the policy names no layer, or nothing is left to quantize.
    """
    for path in (*policy.quantize, *policy.keep):
        if not any(is_below(layer, path) for layer in layers):
            known = ", ".join(dict.fromkeys(layer.path for layer in layers[:5]))
            raise PrecisionError(
                f"quantization names {path!r}, which holds no layer with weights. Layers are "
                f"{known or 'none'}, ..."
            )
    chosen = [
        layer
        for layer in layers
        if _is_chosen(layer, policy)
        and not is_in(layer.node, islands)
        and (policy.target != "cpu" or _has_integers(layer))
    ]
    if not chosen:
        raise PrecisionError(
            f"nothing to quantize: of {len(layers)} layers with weights the policy takes none "
            f"(kinds {', '.join(policy.taken_kinds) or 'none'}). Export in floats."
        )
    return chosen


def _has_integers(layer: Layer) -> bool:
    """Whether ONNX Runtime computes `layer` in integers on a CPU: what it makes is no output of the
    graph, its bias, if any, one constant an output, and a Gemm scales nothing.
    """
    node = layer.node
    scales = [node.attributes.get(name) for name in ("alpha", "beta")]
    if node.op_type not in _WITH_INTEGERS or layer.output.is_graph_output():
        return False
    if any(scale is not None and scale.as_float() != 1 for scale in scales):
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    bias = node.inputs[2].const_value
    weight = layer.weight.const_value
    assert weight is not None
    return bias is not None and list(bias.shape) == [weight.shape[layer.output_axis]]


def _is_chosen(layer: Layer, policy: Quantization) -> bool:
    said = [(len(path), True) for path in policy.quantize if is_below(layer, path)]
    said += [(len(path), False) for path in policy.keep if is_below(layer, path)]
    return max(said)[1] if said else layer.kind in policy.taken_kinds


def is_below(layer: Layer, path: str) -> bool:
    """Whether `layer` belongs to the module `path`, or is the node of that name."""
    return layer.path == path or layer.path.startswith(f"{path}.") or layer.name == path
