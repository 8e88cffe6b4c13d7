"""What the exporter leaves behind goes; what the graph computes stays."""

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import pytest
import tiny_graphs

from sam_deploy.lowering.tidy import tidy

X = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def tidied(body, outputs="float[1,2,3,4] y", initializers=""):
    """The graph `body` of x (1, 2, 3, 4), tidied; its function is checked."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[1,2,3,4] x) => ({outputs}) {initializers} {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": X})
    typed = ir.from_proto(model)
    tidy(typed)
    after = ir.to_proto(typed)
    onnx.checker.check_model(after, full_check=True)
    assert [o.name for o in after.graph.output] == [o.name for o in model.graph.output]
    actual = onnx.reference.ReferenceEvaluator(after).run(None, {"x": X})
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    return after.graph


def ops(graph):
    return sorted(node.op_type for node in graph.node)


def test_opposite_transposes_cancel():
    graph = tidied(
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Transpose<perm=[0,3,1,2]>(a)
           y = Relu(b)"""
    )
    assert ops(graph) == ["Relu"]


def test_transposes_that_are_no_inverses_stay():
    graph = tidied(
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Transpose<perm=[0,2,3,1]>(a)
           y = Relu(b)""",
        outputs="float[1,4,2,3] y",
    )
    assert ops(graph) == ["Relu", "Transpose", "Transpose"]


def test_the_inner_transpose_stays_where_others_read_it():
    graph = tidied(
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Transpose<perm=[0,3,1,2]>(a)
           y = Relu(b)
           z = Relu(a)""",
        outputs="float[1,2,3,4] y, float[1,3,4,2] z",
    )
    assert ops(graph) == ["Relu", "Relu", "Transpose"]


def test_a_transpose_that_is_a_graph_output_survives():
    body = "a = Transpose<perm=[0,2,3,1]>(x)\n y = Transpose<perm=[0,3,1,2]>(a)"
    assert ops(tidied(body)) == ["Transpose", "Transpose"]


def test_an_inner_transpose_that_is_a_graph_output_survives():
    graph = tidied(
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Transpose<perm=[0,3,1,2]>(a)
           y = Relu(b)""",
        outputs="float[1,2,3,4] y, float[1,3,4,2] a",
    )
    assert ops(graph) == ["Relu", "Transpose"]


def test_a_chain_of_pairs_cancels():
    pairs = """a = Transpose<perm=[0,2,3,1]>(x)
               b = Transpose<perm=[0,3,1,2]>(a)
               c = Transpose<perm=[0,2,3,1]>(b)
               d = Transpose<perm=[0,3,1,2]>(c)
               y = Relu(d)"""
    assert ops(tidied(pairs)) == ["Relu"]


def test_a_transpose_without_perm_is_left_alone():
    graph = tidied("a = Transpose(x)\n b = Transpose<perm=[3,2,1,0]>(a)\n y = Relu(b)")
    assert ops(graph) == ["Relu", "Transpose", "Transpose"]


def test_duplicates_identities_and_dead_nodes_go():
    graph = tidied(
        """a = Relu(x)
           b = Relu(x)
           c = Identity(b)
           dead = Neg(x)
           y = Add(a, c)"""
    )
    assert ops(graph) == ["Add", "Relu"]


def test_nodes_made_equal_by_cancelling_are_joined():
    graph = tidied(
        """a = Transpose<perm=[0,2,3,1]>(x)
           b = Transpose<perm=[0,3,1,2]>(a)
           c = Relu(b)
           d = Relu(x)
           y = Add(c, d)"""
    )
    assert ops(graph) == ["Add", "Relu"]


def test_nodes_made_equal_by_sharing_constants_are_joined():
    graph = tidied(
        "a = Mul(x, k)\n b = Mul(x, l)\n y = Add(a, b)",
        initializers="<float k = {2.0}, float l = {2.0}>",
    )
    assert ops(graph) == ["Add", "Mul"]
    assert len(graph.initializer) == 1


@pytest.mark.parametrize(
    "kind", ["classifier", pytest.param("features", marks=pytest.mark.long), "sam"]
)
def test_a_lowered_graph_holds_no_duplicates(kind):
    seen = [
        (node.op_type, tuple(node.input), str(sorted(map(str, node.attribute))))
        for node in tiny_graphs.proto(kind).graph.node
    ]
    assert len(set(seen)) == len(seen)
