"""A graph that is not in the precision asked for is caught, whatever it says of itself."""

import numpy as np
import onnx
import pytest
import tiny_graphs
from onnx import TensorProto, helper, numpy_helper

from sam_deploy.errors import PrecisionError
from sam_deploy.precision import audit_precision, to_fp16
from sam_deploy.recipe import Island

ISLAND = [Island(match="block2.0", reason="a test")]
TARGET = "block1.0.mlp.fc1/Conv"


def fp16(islands=(), **options):
    model = tiny_graphs.graph()
    to_fp16(model, islands, **options)
    return tiny_graphs.ir.to_proto(model)


def position(proto, name):
    return next(i for i, node in enumerate(proto.graph.node) if node.name == name)


def smuggle(proto, name, cast_names=("up/Cast", "down/Cast")):
    """Make the FP16 node `name` compute in FP32 between two Casts."""
    at = position(proto, name)
    node = proto.graph.node[at]
    for weight in proto.graph.initializer:
        if weight.name in node.input:
            wide = numpy_helper.to_array(weight).astype("float32")
            weight.CopyFrom(numpy_helper.from_array(wide, weight.name))
    up = helper.make_node("Cast", [node.input[0]], ["up"], cast_names[0], to=TensorProto.FLOAT)
    down = helper.make_node(
        "Cast", ["down"], [node.output[0]], cast_names[1], to=TensorProto.FLOAT16
    )
    node.input[0], node.output[0] = "up", "down"
    proto.graph.node.insert(at + 1, down)
    proto.graph.node.insert(at, up)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_an_honest_graph_passes_and_is_counted():
    report = audit_precision(fp16(ISLAND), "fp16", ISLAND)
    assert report.types_by_op["Conv"] == {"fp16": 39, "fp32": 9}
    assert report.types_by_op["Cast"] == {"fp32": 2, "fp16": 3}
    assert (report.precision, report.io_dtype, report.islands) == ("fp16", "fp32", ISLAND)
    assert audit_precision(tiny_graphs.proto(), "fp32").types_by_op["Conv"] == {"fp32": 48}


@pytest.mark.parametrize("name", [TARGET, "block3.1.attn/Softmax", "norm4/LayerNormalization"])
def test_a_node_smuggled_in_as_fp32_is_caught(name):
    with pytest.raises(PrecisionError) as caught:
        audit_precision(smuggle(fp16(), name), "fp16")
    assert f"{name} computes in fp32, expected fp16" in str(caught.value)
    assert "up/Cast stands neither at the graph's ends nor at an island" in str(caught.value)


def test_casts_named_as_if_they_were_of_an_island_are_caught():
    proto = smuggle(fp16(ISLAND), TARGET, ("block2.0/Cast_8", "block2.0/Cast_9"))
    with pytest.raises(PrecisionError) as caught:
        audit_precision(proto, "fp16", ISLAND)
    for name in (TARGET, "block2.0/Cast_8", "block2.0/Cast_9"):
        assert name in str(caught.value)


def test_a_foreign_cast_is_caught():
    proto = fp16()
    at = position(proto, TARGET)
    node = proto.graph.node[at]
    cast = helper.make_node("Cast", [node.input[0]], ["odd"], "odd/Cast", to=TensorProto.FLOAT16)
    node.input[0] = "odd"
    proto.graph.node.insert(at, cast)
    with pytest.raises(PrecisionError, match="odd/Cast stands neither"):
        audit_precision(proto, "fp16")


def test_an_island_that_became_fp16_is_caught():
    with pytest.raises(PrecisionError, match=r"block2\.0\.attn\.v/Conv computes in fp16"):
        audit_precision(fp16(), "fp16", ISLAND)


def test_an_fp32_graph_is_no_fp16_graph_and_the_other_way_round():
    with pytest.raises(PrecisionError, match=r"patch_embed1\.conv\.0/Conv computes in fp32"):
        audit_precision(tiny_graphs.proto(), "fp16")
    with pytest.raises(PrecisionError, match=r"patch_embed1\.conv\.0/Conv computes in fp16"):
        audit_precision(fp16(), "fp32")


@pytest.mark.parametrize(("made", "asked"), [("fp32", "fp16"), ("fp16", "fp32")])
def test_ends_of_the_wrong_type_are_caught(made, asked):
    with pytest.raises(PrecisionError) as caught:
        audit_precision(fp16(io_dtype=made), "fp16", io_dtype=asked)
    assert f"input is {made}, expected {asked}" in str(caught.value)
    assert f"logits is {made}, expected {asked}" in str(caught.value)


def test_what_the_graph_says_of_its_types_is_not_believed():
    proto = tiny_graphs.proto()
    for value in proto.graph.value_info:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(PrecisionError, match=r"patch_embed1\.conv\.0/Conv computes in fp32"):
        audit_precision(proto, "fp16")
    honest = fp16()
    for value in honest.graph.value_info:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    audit_precision(honest, "fp16")


def test_types_that_contradict_each_other_are_caught():
    proto = fp16()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(PrecisionError, match="contradict each other"):
        audit_precision(proto, "fp16")


def test_a_node_without_inputs_has_its_outputs_type():
    proto = fp16()
    value = numpy_helper.from_array(np.ones(3, np.float32))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "odd/Constant", value=value))
    with pytest.raises(PrecisionError, match="odd/Constant computes in fp32"):
        audit_precision(proto, "fp16")


def test_double_precision_is_a_finding():
    proto = tiny_graphs.proto()
    value = numpy_helper.from_array(np.ones(3))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "odd/Constant", value=value))
    with pytest.raises(PrecisionError, match="odd/Constant computes in fp64, expected fp32"):
        audit_precision(proto, "fp32")


def test_sizes_and_indices_have_no_precision():
    proto = fp16()
    proto.graph.node.insert(0, helper.make_node("Shape", ["input"], ["size"], "odd/Shape"))
    value = numpy_helper.from_array(np.ones(3, np.int64))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["k"], "odd/Constant", value=value))
    report = audit_precision(proto, "fp16")
    assert "Constant" not in report.types_by_op
