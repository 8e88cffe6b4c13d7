"""TensorRT-RTX's own parser takes what we write, and refuses what the audit refuses."""

import numpy as np
import pytest
import tiny_graphs
from onnx import numpy_helper
from quantized_graphs import quantized
from weights import golden_input

from sam_deploy.precision import to_fp16

pytestmark = pytest.mark.long

rtx = pytest.importorskip("rtx")


def typed(precision, kind="classifier"):
    shape = tiny_graphs.case(kind).example[0].shape[1:]
    made, _ = quantized(tiny_graphs.graph(kind), {"input": golden_input(3, *shape)}, precision)
    model = tiny_graphs.ir.from_proto(made)
    to_fp16(model)
    return tiny_graphs.ir.to_proto(model)


@pytest.mark.parametrize("kind", ["classifier", "features", "sam"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_it_takes_our_graphs_without_a_complaint(precision, kind):
    parsed = rtx.Parsed(typed(precision, kind).SerializeToString())
    assert parsed.taken
    assert parsed.complaints == []


def test_it_refuses_a_zero_point_that_is_not_zero():
    proto = typed("int8")
    zeros = {node.input[2] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    for weight in proto.graph.initializer:
        if weight.name in zeros:
            weight.CopyFrom(numpy_helper.from_array(np.int8(3), weight.name))
    assert not rtx.Parsed(proto.SerializeToString()).taken
