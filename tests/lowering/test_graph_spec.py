"""Whatever a static graph of SMT needs not is refused, and named."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from conftest import golden
from onnx import TensorProto, helper, numpy_helper

from sam_deploy.errors import GraphSpecError
from sam_deploy.lowering import check_graph, graph_spec, onnx_from_module
from sam_deploy.models import SAM
from sam_deploy.rewrites import pipeline, rewrite

AT = "block1.0.attn.act/Gelu"  # its output (1, 16, 16, 24) is what sabotage is inserted behind


def ints(*values):
    return np.array(values, np.int64)


def one_branch(name):
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    value = numpy_helper.from_array(np.float32(1), f"{name}_value")
    node = helper.make_node("Constant", [], [name], value=value)
    return helper.make_graph([node], name, [], [out])


def loop_body():
    i = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    c_in = helper.make_tensor_value_info("c_in", TensorProto.BOOL, [])
    c_out = helper.make_tensor_value_info("c_out", TensorProto.BOOL, [])
    return helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"])], "body", [i, c_in], [c_out]
    )


# operator: constants after the sabotaged value, attributes
SABOTAGE = {
    "Shape": ([], {}),
    "Gather": ([ints(0)], {"axis": 1}),
    "Slice": ([ints(0), ints(8), ints(1)], {}),
    "Unsqueeze": ([ints(0)], {}),
    "Squeeze": ([ints(0)], {}),
    "Expand": ([ints(1, 16, 16, 24)], {}),
    "Cast": ([], {"to": TensorProto.FLOAT16}),
    "Identity": ([], {}),
    "Dropout": ([], {}),
    "BatchNormalization": ([np.ones(16, np.float32)] * 4, {}),
}


def sabotaged(*nodes, constants=()):
    proto = tiny_graphs.proto()
    for name, value in constants:
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    at = next(i for i, node in enumerate(proto.graph.node) if node.name == AT)
    for node in reversed(nodes):
        node.name = f"block1.0.attn.act/{node.op_type}"
        proto.graph.node.insert(at + 1, node)
    return ir.from_proto(proto)


@pytest.mark.parametrize("op", SABOTAGE)
def test_an_operator_that_is_not_allowed_is_refused(op):
    values, attributes = SABOTAGE[op]
    constants = [(f"sabotage{i}", value) for i, value in enumerate(values)]
    inputs = [f"{AT}:0", *(name for name, _ in constants)]
    model = sabotaged(helper.make_node(op, inputs, ["odd"], **attributes), constants=constants)
    with pytest.raises(GraphSpecError, match=rf"block1\.0\.attn\.act/{op}: ai\.onnx\.{op} is not"):
        check_graph(model)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Range", ["a", "a", "a"], ["odd"]),
        helper.make_node("ConstantOfShape", ["a"], ["odd"]),
        helper.make_node(
            "If", ["a"], ["odd"], then_branch=one_branch("then"), else_branch=one_branch("else_")
        ),
        helper.make_node("Loop", ["a", ""], [], body=loop_body()),
        helper.make_node("Gelu", [f"{AT}:0"], ["odd"], domain="com.microsoft"),
    ],
    ids=lambda node: node.op_type,
)
def test_runtime_sizes_control_flow_and_foreign_domains_are_refused(node):
    with pytest.raises(GraphSpecError, match=rf"act/{node.op_type}: .* is not an allowed operator"):
        check_graph(sabotaged(node, constants=[("a", np.array(1, np.int64))]))


@pytest.mark.parametrize("perm", [[1, 0, 2, 3], [0, 3, 2, 1], [0, 1, 2, 3], None])
def test_an_unknown_permutation_is_refused(perm):
    attributes = {} if perm is None else {"perm": perm}
    node = helper.make_node("Transpose", [f"{AT}:0"], ["odd"], **attributes)
    with pytest.raises(GraphSpecError, match=r"act/Transpose: permutes axes by"):
        check_graph(sabotaged(node))


def test_a_reshape_to_a_runtime_shape_is_refused():
    shape = helper.make_node("Shape", [f"{AT}:0"], ["shape"])
    reshape = helper.make_node("Reshape", [f"{AT}:0", "shape"], ["odd"])
    with pytest.raises(GraphSpecError, match=r"act/Reshape: reshapes to sizes computed at run"):
        check_graph(sabotaged(shape, reshape))


@pytest.mark.parametrize("shape", [ints(-1), ints(1, 4, 4, 16, 24)])
def test_a_reshape_between_unknown_ranks_is_refused(shape):
    node = helper.make_node("Reshape", [f"{AT}:0", "to"], ["odd"])
    with pytest.raises(GraphSpecError, match=r"act/Reshape: reshapes \[batch,16,16,24\] to"):
        check_graph(sabotaged(node, constants=[("to", shape)]))


def test_a_reshape_of_an_unknown_value_is_refused():
    model = tiny_graphs.graph()
    node = next(node for node in model.graph if node.op_type == "Reshape")
    node.inputs[0].shape = None
    with pytest.raises(GraphSpecError, match=rf"{node.name}: reshapes a value of unknown rank"):
        check_graph(model)


def test_a_weight_stored_twice_is_refused():
    model = tiny_graphs.proto()
    weight = next(w for w in model.graph.initializer if w.name == "patch_embed2.proj.weight")
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    copy.name = "again"
    model.graph.initializer.append(copy)
    with pytest.raises(GraphSpecError, match=rf"weight again is stored twice: .* {weight.name}"):
        check_graph(ir.from_proto(model))


def test_a_layer_norm_that_computes_in_fp16_is_refused():
    model = tiny_graphs.graph()
    node = next(node for node in model.graph if node.op_type == "LayerNormalization")
    node.attributes["stash_type"] = ir.AttrInt64("stash_type", 10)
    with pytest.raises(GraphSpecError, match=rf"{node.name}: computes in type 10, expected FP32"):
        check_graph(model)


def test_a_graph_too_large_for_one_file_is_refused(monkeypatch):
    monkeypatch.setattr(graph_spec, "MAX_BYTES", 1000)
    with pytest.raises(GraphSpecError, match="one file holds less than 1000"):
        check_graph(tiny_graphs.graph())


def test_many_findings_are_counted():
    model = tiny_graphs.graph()
    for node in model.graph:
        if node.op_type == "Conv":
            node.op_type = "ConvInteger"
    with pytest.raises(GraphSpecError, match="and 38 more"):
        check_graph(model)


@pytest.mark.long
def test_the_model_that_was_not_rewritten_is_refused():
    case = tiny_graphs.case()
    with pytest.raises(GraphSpecError, match="a module was not recognised"):
        check_graph(tiny_graphs.lower(case._replace(static=case.eager)))


def test_a_head_shuffle_that_was_left_is_refused(monkeypatch):
    unfolded = [rule for rule in pipeline.PIPELINE if rule.name != "fold_head_shuffle"]
    monkeypatch.setattr(pipeline, "PIPELINE", unfolded)
    module, inputs = golden(SAM(16, 4)), (torch.randn(1, 30, 16), 5, 6)
    static, _ = rewrite(module, inputs)
    graph = onnx_from_module(static, inputs, input_names=["input"], output_names=["output"])
    with pytest.raises(GraphSpecError, match=r"shuffle/Reshape.*\n.*shuffle/Transpose"):
        check_graph(graph)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "softmax", "features", "sam"])
def test_what_we_export_is_accepted(kind):
    check_graph(tiny_graphs.graph(kind))
