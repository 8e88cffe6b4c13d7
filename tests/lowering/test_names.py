"""Every node says which module it comes from."""

import onnx_ir as ir
import pytest
import tiny_graphs

from sam_deploy.lowering.names import name_by_module

SCOPES = "pkg.torch.onnx.name_scopes"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "softmax", "features", "sam"])
def test_names_are_paths_of_real_modules_and_unique(kind):
    modules = dict(tiny_graphs.case(kind).static.named_modules())
    names = [node.name for node in tiny_graphs.proto(kind).graph.node]
    assert len(set(names)) == len(names)
    assert [n for n in names if n.rpartition("/")[0] not in modules] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "features", "sam"])
def test_values_are_named_after_their_nodes_and_unique(kind):
    graph = tiny_graphs.proto(kind).graph
    outputs = {value.name for value in graph.output}
    named = [name for node in graph.node for name in node.output]
    for node in graph.node:
        assert set(node.output) <= outputs | {f"{node.name}:{i}" for i in range(len(node.output))}
    everything = named + [v.name for v in graph.initializer] + [v.name for v in graph.input]
    assert len(set(everything)) == len(everything)


def test_the_operators_stand_in_the_modules_they_came_from():
    nodes = {node.name: node for node in tiny_graphs.proto().graph.node}
    assert nodes["patch_embed1.conv.0/Conv"].input[1] == "patch_embed1.conv.0.weight"
    assert nodes["block3.1.attn/Softmax"].op_type == "Softmax"
    assert nodes["head/Gemm"].output[0] == "logits"


def node(op, inputs, scopes=None):
    made = ir.node(op, inputs)
    if scopes is not None:
        made.metadata_props[SCOPES] = str(scopes)
    made.outputs[0].name = f"old{id(made)}"
    return made


def test_a_node_without_a_record_goes_where_its_neighbours_agree():
    x = ir.Value(name="x")
    first = node("Relu", [x], ["", "block1", "block1.0", "relu"])
    inserted = node("Transpose", first.outputs)
    last = node("Relu", inserted.outputs, ["", "block1", "block1.1", "relu"])
    apart = node("Transpose", last.outputs)
    root = node("Relu", apart.outputs, ["relu"])
    nodes = [first, inserted, last, apart, root]
    graph = ir.Graph([x], root.outputs, nodes=nodes)
    name_by_module(graph)
    assert [n.name for n in nodes] == [
        "block1.0/Relu",
        "block1/Transpose",
        "block1.1/Relu",
        "Transpose",
        "Relu",
    ]


def test_a_second_node_of_a_kind_is_counted_and_graph_outputs_keep_their_names():
    x = ir.Value(name="x")
    first = node("Relu", [x], ["", "act", "relu"])
    second = node("Relu", first.outputs, ["", "act", "relu"])
    second.outputs[0].name = "logits"
    name_by_module(ir.Graph([x], second.outputs, nodes=[first, second]))
    assert [first.name, second.name] == ["act/Relu", "act/Relu_2"]
    assert [first.outputs[0].name, second.outputs[0].name] == ["act/Relu:0", "logits"]
