"""ONNX graphs written so that values inside them can be seen, given or shifted.

Each is written from a copy; names are those of the graph, with a mark behind them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx_ir as ir

SEEN = "|seen"
GIVEN = "|given"
SHIFT = "|shift"
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def values_of(model: ir.Model) -> dict[str, ir.Value]:
    """The floats that the nodes of `model` make, by name, in the order of the graph.

    Where a Cast gives an output its type, that name means what stands before it: that is what
    the rest of the graph reads.
    """
    made = (value for node in model.graph for value in node.outputs)
    found = {value.name: value for value in made if value.name and value.dtype in _FLOATS}
    for output in model.graph.outputs:
        producer = output.producer()
        before = producer.inputs[0] if producer and producer.op_type == "Cast" else None
        if output.name in found and before is not None and before.name in found:
            found[output.name] = before
    return found


def write_seen(model: ir.Model, names: Collection[str], path: Path) -> None:
    """Write `model` with the values `names` as further outputs, in FP32."""
    copied = model.clone()
    values = values_of(copied)
    for name in names:
        _see(copied.graph, name, values[name])
    ir.save(copied, path)


def write_cut(model: ir.Model, names: Collection[str], path: Path) -> None:
    """Write `model` cut at the values `names`: what reads one of them reads a new input, so that
    every part between them runs on what it is given. What the parts make are further outputs.
    """
    copied = model.clone()
    values = values_of(copied)
    for name in names:
        value, uses = values[name], list(values[name].uses())
        _see(copied.graph, name, value)
        if not uses:
            continue
        given = _input(copied.graph, name + GIVEN)
        typed = _node("Cast", [given], f"{name}{GIVEN}|typed", value.dtype)
        copied.graph.insert_before(copied.graph[0], typed)
        for user, index in uses:
            user.replace_input_with(index, typed.outputs[0])
    ir.save(copied, path)


def write_shifted(model: ir.Model, names: Collection[str], path: Path) -> None:
    """Write the FP32 `model` with something added to each of the values `names`: new inputs, of
    the value's shape or a single number.
    """
    copied = model.clone()
    graph, values = copied.graph, values_of(copied)
    for name in names:
        value, uses = values[name], list(values[name].uses())
        producer = value.producer()
        assert producer is not None
        added = ir.node("Add", [value, _input(graph, name + SHIFT)], name=f"{name}|shifted")
        shifted = added.outputs[0]
        shifted.name, shifted.type, shifted.shape = f"{name}|shifted", value.type, value.shape
        graph.insert_after(producer, added)
        for user, index in uses:
            user.replace_input_with(index, shifted)
        for index, output in enumerate(graph.outputs):
            if output is value:
                value.name, shifted.name = f"{name}|unshifted", name
                graph.outputs[index] = shifted
    ir.save(copied, path)


def _see(graph: ir.Graph, name: str, value: ir.Value) -> None:
    node = _node("Cast", [value], f"{name}{SEEN}", ir.DataType.FLOAT)
    graph.append(node)
    graph.outputs.append(node.outputs[0])


def _input(graph: ir.Graph, name: str) -> ir.Value:
    made = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(made)
    return made


def _node(op: str, inputs: list[ir.Value], name: str, to: ir.DataType | None) -> ir.Node:
    assert to is not None
    node = ir.node(op, inputs, attributes={"to": to.value}, name=name)
    node.outputs[0].name, node.outputs[0].dtype = name, to
    return node
