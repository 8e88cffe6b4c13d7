"""ONNX file to TensorRT network: strongly typed, and every refusal with its node and module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from sam_deploy.errors import CheckFailed, GraphSpecError, InputError
from sam_deploy.tensorrt_family import Member, Said, log_of

_LACKS = "it has no such operator, or not in this form"


def parsed_network(builder: Any, path: Path, member: Member, said: Said) -> Any:
    """The INetworkDefinition of the ONNX file `path`; `said` is what the build gathers.

    Raises:
        InputError: it is not ONNX.
        GraphSpecError: a zero point is UINT8, which TensorRT reads as INT8 with a mere warning.
        CheckFailed: the parser refuses the graph; says why, with the ONNX node and its module.
    """
    _refuse_uint8(path)
    flags = member.trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    parser = member.trt.OnnxParser(network, log_of(member).logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        refusals = [_refusal(error) for error in errors] or said.reasons()
        raise CheckFailed(
            f"{member.name} does not take the graph:\n  "
            + "\n  ".join(refusals)
            + "\nChange what the named module computes, or leave this engine out with --engine."
        )
    uint8 = [warning for warning in said.warnings if "UINT8" in warning]
    if uint8:
        raise GraphSpecError(f"{member.name} would read UINT8 as INT8: {uint8[0]}")
    return network


def with_module(node_name: str, operator: str = "") -> str:
    """'block1.0.attn.q/Conv (Conv of module block1.0.attn.q)'."""
    module, _, last = node_name.rpartition("/")
    operator = operator or last
    return f"{node_name} ({operator} of module {module})" if module else f"{node_name} ({operator})"


def _refusal(error: Any) -> str:
    reason = error.desc().splitlines()
    # An operator that it does not know is told as the C++ condition that did not hold.
    if reason[0] == "false" or "Plugin not found" in reason[0]:
        reason = [f"{_LACKS} ({error.code().name})"]
    where = with_module(error.node_name(), error.node_operator())
    useful = [line for line in reason if "catchCudaError" not in line]
    return f"{where}: " + "\n    ".join(useful or reason)


def _refuse_uint8(path: Path) -> None:
    data = path.read_bytes()
    try:
        graph = onnx.load_from_string(data).graph
    except Exception:  # protobuf's DecodeError
        raise InputError(f"{path} is not an ONNX file.") from None
    kind = onnx.TensorProto.UINT8
    uint8 = {weight.name for weight in graph.initializer if weight.data_type == kind}
    uint8 |= {value.name for value in graph.input if value.type.tensor_type.elem_type == kind}
    for node in graph.node:
        given = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in given and given["value"].t.data_type == kind:
            uint8.add(node.output[0])
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        # Without a zero point, and without a type of its own, QuantizeLinear makes UINT8.
        typed = "output_dtype" in given and given["output_dtype"].i not in (0, kind)
        unsaid = node.op_type == "QuantizeLinear" and not typed and not "".join(node.input[2:])
        if unsaid or uint8 & {*node.input}:
            raise GraphSpecError(
                f"{with_module(node.name, node.op_type)} is in UINT8, by its zero point or for "
                "want of one; TensorRT reads that as INT8. Quantize to INT8 with zero point 0."
            )
