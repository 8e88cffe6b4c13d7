"""FP16 is a matter of types in the graph: of weights, values, ends, islands and Casts between."""

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from weights import golden_input

from sam_deploy.agreement import relative_rms
from sam_deploy.errors import PrecisionError
from sam_deploy.precision import audit_precision, fp32_only_islands, to_fp16
from sam_deploy.recipe import Island

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def islands(*paths):
    return [Island(match=path, reason="a test") for path in paths]


def converted(model, *paths, **options):
    to_fp16(model, islands(*paths), **options)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    audit_precision(proto, "fp16", islands(*paths), options.get("io_dtype", "fp32"))
    return proto


def chain(*nodes, outputs="y", weights=()):
    """A graph of x (2, 4) from (name, operator, inputs, output)."""
    body = "\n".join(f"{out} = {op} ({', '.join(ins)})" for _, op, ins, out in nodes)
    ends = ", ".join(f"float[2,4] {name}" for name in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[2,4] x) => ({ends}) {{ {body} }}'
    )
    for node, (name, *_) in zip(model.graph.node, nodes, strict=True):
        node.name = name
    for name, value in weights:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def casts(proto):
    """What each Cast reads and what it gives, by name."""
    named = {FLOAT: "fp32", HALF: "fp16"}
    return {
        node.name: (node.input[0], named[node.attribute[0].i])
        for node in proto.graph.node
        if node.op_type == "Cast"
    }


def types(proto):
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    weights = {weight.name for weight in proto.graph.initializer}
    return {v.name: v.type.tensor_type.elem_type for v in values if v.name not in weights}


def close(proto, kind="classifier"):
    """relRMS to PyTorch, by an evaluator that computes FP16 in FP16."""
    case = tiny_graphs.case(kind)
    x = golden_input(2, *case.example[0].shape[1:])
    dtype = np.float16 if proto.graph.input[0].type.tensor_type.elem_type == HALF else np.float32
    with torch.no_grad():
        reference = case.eager(torch.from_numpy(x), *case.example[1:]).numpy()
    (actual,) = onnx.reference.ReferenceEvaluator(proto).run(None, {"input": x.astype(dtype)})
    assert actual.dtype == dtype
    assert np.isfinite(actual).all()
    return relative_rms(actual, reference)


@pytest.mark.parametrize("kind", ["classifier", "sam"])
def test_weights_and_values_are_fp16_and_the_ends_fp32(kind):
    proto = converted(tiny_graphs.graph(kind))
    ends = {value.name for value in [*proto.graph.input, *proto.graph.output]}
    assert {w.data_type for w in proto.graph.initializer} <= {HALF, onnx.TensorProto.INT64}
    assert {t for name, t in types(proto).items() if name not in ends} == {HALF}
    assert {types(proto)[name] for name in ends} == {FLOAT}
    assert len(casts(proto)) == 2
    assert 1e-5 < close(proto, kind) < 3e-3


def test_with_fp16_ends_there_is_no_cast_at_all():
    proto = converted(tiny_graphs.graph(), io_dtype="fp16")
    assert casts(proto) == {}
    assert set(types(proto).values()) == {HALF}
    assert close(proto) < 3e-3


@pytest.mark.parametrize("io_dtype", ["fp32", "fp16"])
def test_outputs_that_the_graph_reads_on_keep_name_and_type(io_dtype):
    proto = converted(tiny_graphs.graph("features"), io_dtype=io_dtype)
    assert [v.name for v in proto.graph.output] == tiny_graphs.STAGES
    assert len(casts(proto)) == (5 if io_dtype == "fp32" else 0)
    readers = [node for node in proto.graph.node if set(node.input) & set(tiny_graphs.STAGES)]
    assert bool(readers) == (io_dtype == "fp16")


def test_an_island_stays_fp32_and_casts_stand_only_around_it():
    path = "block3.1.attn"
    proto = converted(tiny_graphs.graph(), path)
    inferred, weights = types(proto), {w.name: w for w in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Cast":
            continue
        inside = node.name.rpartition("/")[0].startswith(path)
        expected = FLOAT if inside else HALF
        if node.output[0] != "logits":
            assert inferred[node.output[0]] == expected, node.name
        kinds = {weights[name].data_type for name in node.input if name in weights}
        assert kinds <= {expected, onnx.TensorProto.INT64}, node.name
    assert casts(proto) == {
        "patch_embed1.conv.0/Cast": ("input", "fp16"),
        f"{path}.q/Cast": ("block3.1.norm1/Transpose_2:0", "fp32"),
        "block3.1/Cast": (f"{path}.proj/Conv:0", "fp16"),
        "head/Cast": ("head/Gemm:0", "fp32"),
    }
    assert close(proto) < 3e-3


def test_island_weights_are_the_untouched_ones():
    before = {w.name: w for w in tiny_graphs.proto().graph.initializer}
    proto = converted(tiny_graphs.graph(), "block2")
    kept = [w for w in proto.graph.initializer if w.data_type == FLOAT]
    assert kept
    assert all(w.raw_data == before[w.name].raw_data for w in kept)


@pytest.mark.long
def test_the_softmax_island_is_the_softmax_alone():
    proto = converted(tiny_graphs.graph("softmax"), "head.1")
    (softmax,) = [node for node in proto.graph.node if node.name == "head.1/Softmax"]
    assert list(softmax.output) == ["logits"]
    assert casts(proto)["head.1/Cast"] == ("head.0/Gemm:0", "fp32")
    assert len(casts(proto)) == 2
    assert close(proto, "softmax") < 3e-3


def test_nodes_of_an_island_share_their_casts():
    proto = converted(
        chain(
            ("a/Relu", "Relu", ["x"], "a"),
            ("i/Neg", "Neg", ["a"], "b"),
            ("i.sub/Add", "Add", ["a", "b"], "c"),
            ("j/Add", "Add", ["c", "a"], "d"),
            ("k/Mul", "Mul", ["c", "d"], "y"),
        ),
        "i",
    )
    assert casts(proto) == {
        "a/Cast": ("x", "fp16"),
        "i/Cast": ("a", "fp32"),
        "j/Cast": ("c", "fp16"),
        "k/Cast": ("k/Mul:0", "fp32"),
    }


def test_an_island_at_the_ends_needs_no_cast_there():
    nodes = (("i/Neg", "Neg", ["x"], "a"), ("j/Relu", "Relu", ["a"], "b"))
    proto = converted(chain(*nodes, ("i/Abs", "Abs", ["b"], "y")), "i")
    assert casts(proto) == {"j/Cast": ("a", "fp16"), "i/Cast": ("b", "fp32")}


def test_an_output_that_an_island_reads_on_is_cast_once():
    proto = converted(
        chain(("a/Relu", "Relu", ["x"], "y"), ("i/Neg", "Neg", ["y"], "z"), outputs="y z"), "i"
    )
    assert Counter(to for _, to in casts(proto).values()) == {"fp16": 1, "fp32": 1}
    assert [v.name for v in proto.graph.output] == ["y", "z"]


def test_two_outputs_of_one_node_stay_apart():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,4] x) => (float[1,4] y, float[1,4] z)
        { y, z = Split <axis=0, num_outputs=2> (x) }""")
    model.graph.node[0].name = "Split"
    proto = converted(ir.from_proto(model))
    assert {v for v, _ in casts(proto).values()} == {"x", "Split:0", "Split:1"}


def test_a_path_does_not_match_a_longer_name():
    nodes = (("head/Neg", "Neg", ["x"], "a"), ("head2/Relu", "Relu", ["a"], "b"))
    nodes = (*nodes, ("head.1/Abs", "Abs", ["b"], "c"), ("my.head/Neg", "Neg", ["c"], "y"))
    inferred = types(converted(chain(*nodes), "head"))
    assert [inferred[name] for name in "abc"] == [FLOAT, HALF, FLOAT]


def test_a_weight_used_in_and_out_of_an_island_is_exact_inside():
    nodes = (("a/Mul", "Mul", ["x", "w"], "a"), ("i/Mul", "Mul", ["a", "w"], "y"))
    proto = converted(chain(*nodes, weights=[("w", 1 + 2**-14)]), "i")
    by_name = {node.name: list(node.input) for node in proto.graph.node}
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}
    inside, outside = weights[by_name["i/Mul"][1]], weights[by_name["a/Mul"][1]]
    assert (inside.dtype, float(inside)) == (np.float32, 1 + 2**-14)
    assert (outside.dtype, float(outside)) == (np.float16, 1.0)


@pytest.mark.parametrize("value", [65536.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_fp16_is_refused_by_name(value):
    model = chain(("a/Mul", "Mul", ["x", "w"], "y"), weights=[("a.scale", 1.0), ("w", value)])
    with pytest.raises(PrecisionError, match=r"weight w of module a holds .*; FP16 ends"):
        to_fp16(model)


def test_the_largest_fp16_and_a_large_weight_in_an_island_are_taken():
    converted(chain(("a/Mul", "Mul", ["x", "w"], "y"), weights=[("w", 65504.0)]))
    converted(chain(("a/Mul", "Mul", ["x", "w"], "y"), weights=[("w", 1e9)]), "a")


@pytest.mark.parametrize("path", ["block9", "block1.0.at", "Block1", "block1.0.attn/Mul_9"])
def test_an_island_that_names_nothing_is_refused(path):
    with pytest.raises(PrecisionError, match=f"island '{path}' names no module or node"):
        to_fp16(tiny_graphs.graph(), islands("block1.0.attn", path))


def test_an_island_may_be_a_single_node():
    nodes = (("a/Neg", "Neg", ["x"], "a"), ("a/Abs", "Abs", ["a"], "b"), ("Abs", "Abs", ["b"], "y"))
    inferred = types(converted(chain(*nodes), "a/Neg"))
    assert [inferred[name] for name in "ab"] == [FLOAT, HALF]


RESIZE = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[1,2,4,4] x, bool[1,2,8,8] mask) => (float[1,2,8,8] y)
    <float[4] scales = {1, 1, 2, 2}, float low = {-5}>
    {
        size = Shape (x)
        zeros = ConstantOfShape <value = float[1] {0.25}> (size)
        ones = Cast <to = 1> (mask)
        a = Add (x, zeros)
        b = Resize <mode = "nearest"> (a, , scales)
        c = Where (mask, b, low)
        y = Mul (c, ones)
    }"""


def test_what_onnx_has_in_fp32_only_stays_so_and_what_makes_floats_makes_halves():
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(RESIZE))
    for node in model.graph.node:
        node.name = node.op_type
    proto = converted(ir.from_proto(model))
    kept = {w.name: w.data_type for w in proto.graph.initializer}
    assert (kept["scales"], kept["low"]) == (FLOAT, HALF)
    x = np.random.RandomState(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    mask = np.random.RandomState(1).rand(1, 2, 8, 8) > 0.5
    runs = [
        onnx.reference.ReferenceEvaluator(p).run(None, {"x": x, "mask": mask})[0]
        for p in (onnx.parser.parse_model(RESIZE), proto)
    ]
    assert relative_rms(runs[1], runs[0]) < 1e-3


def test_an_operator_without_an_fp16_form_becomes_an_island():
    model = ir.from_proto(
        onnx.shape_inference.infer_shapes(
            onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
            g (float[5] x) => (float[5] y) <float zero = {0}, float five = {5}, float one = {1}>
            { steps = Range (zero, five, one)   y = Mul (x, steps) }""")
        )
    )
    for node in model.graph:
        node.name = node.op_type
    found = fp32_only_islands(model)
    assert [(i.match, i.reason) for i in found] == [("Range", "ONNX has no Range in FP16")]
    assert fp32_only_islands(model, found) == []
    to_fp16(model, found)
    proto = ir.to_proto(model)
    audit_precision(proto, "fp16", found)
    (y,) = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": np.ones(5, np.float32)})
    np.testing.assert_array_equal(y, np.arange(5))
