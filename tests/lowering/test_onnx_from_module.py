"""A rewritten module becomes an ONNX file that is valid, the same function, and says no more."""

import getpass
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
import torch
from tiny_graphs import SIZE, STAGES
from weights import golden_input

from sam_deploy.agreement import relative_rms
from sam_deploy.lowering import check_graph
from sam_deploy.rewrite_options import RewriteOptions

KINDS = ["classifier", "features", "sam"]


def eager(kind, x):
    case = tiny_graphs.case(kind)
    with torch.no_grad():
        out = case.eager(torch.from_numpy(x), *case.example[1:])
    return [y.numpy() for y in ([out] if isinstance(out, torch.Tensor) else out)]


def images(kind, batch):
    return golden_input(batch, *tiny_graphs.case(kind).example[0].shape[1:])


def run(model, x):
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else model.SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    return session.run(None, {"input": x})


def dims(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_runtime_agrees_with_pytorch_at_every_batch(kind, batch):
    x = images(kind, batch)
    for actual, reference in zip(
        run(tiny_graphs.proto_bytes(kind), x), eager(kind, x), strict=True
    ):
        assert actual.shape == reference.shape
        assert relative_rms(actual, reference) < 1e-6


@pytest.mark.long
def test_a_fixed_batch_is_fixed_and_right():
    model = tiny_graphs.proto(batch=3)
    assert [dims(v) for v in [*model.graph.input, *model.graph.output]] == [[3, 3, *SIZE], [3, 10]]
    x = images("classifier", 3)
    assert relative_rms(run(model, x)[0], eager("classifier", x)[0]) < 1e-6
    with pytest.raises(Exception, match="Got: 2 Expected: 3"):
        run(model, x[:2])
    check_graph(tiny_graphs.graph(batch=3))


@pytest.mark.parametrize("kind", ["classifier", "sam"])
def test_the_reference_evaluator_agrees(kind):
    x = images(kind, 2)
    (actual,) = onnx.reference.ReferenceEvaluator(tiny_graphs.proto(kind)).run(None, {"input": x})
    assert relative_rms(actual, eager(kind, x)[0]) < 1e-6


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [
        ("classifier", {"input": ["batch", 3, *SIZE]}, {"logits": ["batch", 10]}),
        (
            "features",
            {"input": ["batch", 3, *SIZE]},
            {
                name: ["batch", 8 * (i + 1), SIZE[0] >> (i + 2), SIZE[1] >> (i + 2)]
                for i, name in enumerate(STAGES)
            },
        ),
        ("sam", {"input": ["batch", 40, 24]}, {"output": ["batch", 40, 24]}),
    ],
)
def test_the_file_is_valid_and_its_ends_are_named(kind, inputs, outputs):
    model = tiny_graphs.proto(kind)
    onnx.checker.check_model(model, full_check=True)
    assert {v.name: dims(v) for v in model.graph.input} == inputs
    assert {v.name: dims(v) for v in model.graph.output} == outputs
    assert {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]} == {1}
    assert [(o.domain, o.version >= 20) for o in model.opset_import] == [("", True)]
    assert not model.functions
    check_graph(tiny_graphs.graph(kind))


def test_the_batch_has_its_name_everywhere():
    # A Gemm multiplies it (40*batch); with constants among the inputs the exporter calls it s77.
    case = tiny_graphs.case("sam", RewriteOptions(linear="gemm"))
    model = tiny_graphs.lower(case)
    check_graph(model)
    symbols = {
        str(d) for n in model.graph for v in n.outputs for d in v.shape if type(d) is not int
    }
    assert symbols == {"batch", "40*batch"}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_this_machine_is_in_the_file(kind):
    model = tiny_graphs.proto(kind)
    assert not model.metadata_props
    assert not model.graph.metadata_props
    assert not model.doc_string
    assert not model.graph.doc_string
    parts = [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in [*parts, *model.graph.initializer]:
        assert not part.metadata_props, part.name
        assert not part.doc_string, part.name
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")  # random bytes may spell anything
    data = model.SerializeToString()
    private = ["pkg.", "File ", ".py", "site-packages", "/tmp", f"/{getpass.getuser()}"]
    private += [str(Path(__file__).parents[2]), str(Path.home())]
    assert not [word for word in private if word.encode() in data]


@pytest.mark.long
def test_two_exports_are_one_file():
    again = ir.to_proto(tiny_graphs.lower(tiny_graphs.case("sam")))
    assert again.SerializeToString(deterministic=True) == tiny_graphs.proto_bytes("sam")


def test_the_module_and_its_inputs_are_left_alone():
    case = tiny_graphs.case("sam")
    before = {name: value.clone() for name, value in case.static.state_dict().items()}
    example = case.example[0].clone()
    tiny_graphs.lower(case)
    assert torch.equal(case.example[0], example)
    after = case.static.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert np.isfinite(eager("sam", images("sam", 1))[0]).all()
