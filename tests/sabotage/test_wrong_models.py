"""Bundles that are whole, and whose ONNX is not the model: each fails, and says where.

FP32's tolerances are meant to see a single wrong weight; FP16's, 300 times as wide, see what is
said in each test.
"""

import numpy as np
import pytest
import torch
from broken import (
    ON_CPU,
    behind,
    changed,
    check,
    constant,
    failures,
    judged,
    lowered,
    set_weight,
    weight,
    with_manifest,
    with_model,
)
from onnx import TensorProto, helper

from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.reference import subject_from_recipe

pytestmark = pytest.mark.export
pytest_plugins = ["good_bundles"]

LAYERS = [
    "patch_embed1.conv.0.weight",
    "block1.0.attn.proj0.weight",
    "block3.1.attn.q.weight",
    "norm4.weight",
    "head.weight",
]


def fp16_would_see(result):
    (output,) = result.artefacts[0].parity.outputs
    return output.relative_rms > DEFAULT_TOLERANCES["fp16"].relative_rms


def test_the_untouched_ones_pass(tiny, sam, tiny_judged):
    for result in (tiny_judged(tiny), judged(sam)):
        assert (result.passed, result.failures) == (True, [])
        (output,) = result.artefacts[0].parity.outputs
        assert output.relative_rms < 1e-6


@pytest.mark.parametrize("name", LAYERS)
def test_one_weight_off_by_one_percent(tiny, tiny_judged, name):
    def break_it(model):
        value = weight(model, name)
        value.flat[np.abs(value).argmax()] *= 1.01
        set_weight(model, name, value)

    result = tiny_judged(changed(tiny, break_it))
    assert failures(result)[0].startswith(f"{ON_CPU}logits: relative RMS")
    assert not fp16_would_see(result)


def test_two_channels_swapped(tiny, tiny_judged):
    def break_it(model):
        name = "block2.0.attn.proj0.weight"
        set_weight(model, name, weight(model, name)[[1, 0, *range(2, 32)]])

    result = tiny_judged(changed(tiny, break_it))
    assert failures(result)[0].startswith(f"{ON_CPU}logits: relative RMS")
    assert fp16_would_see(result)


def sabotaged_sam(recipe, sabotage):
    """The SAM of the recipe, changed in PyTorch, and exported as any other."""
    subject = subject_from_recipe(recipe)
    with torch.no_grad():
        sabotage(subject.module)
    return lowered(subject.module, subject.example_inputs, "output")


def shift_kernel(module):
    kernel = module.local_conv_2.weight
    kernel.copy_(torch.roll(kernel, 1, dims=-1))
    kernel[..., 0] = 0


def other_epsilon(module):
    module.bn.eps = 1e-3


@pytest.mark.parametrize(
    ("sabotage", "seen_in_fp16"), [(shift_kernel, True), (other_epsilon, False)]
)
def test_one_heads_kernel_shifted_by_a_pixel_and_another_batch_norm_epsilon(
    sam, sam_recipe, sabotage, seen_in_fp16
):
    result = judged(with_model(sam, sabotaged_sam(sam_recipe, sabotage)))
    assert failures(result)[0].startswith(f"{ON_CPU}output: relative RMS")
    assert fp16_would_see(result) == seen_in_fp16


def test_another_layer_norm_epsilon(tiny, tiny_model, tiny_judged):
    """5e-6 of the logits' spread: no default tolerance sees it, so the graph is read."""
    module = tiny_model()
    for part in module.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-5  # the patch embeddings have it already
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wrong = with_model(tiny, lowered(module, (image,), "logits"))
    result = tiny_judged(wrong)
    assert [reason.partition(":")[0] for reason in failures(result)] == ["constants"]
    detail = check(result, "constants").detail
    assert "block1.0.norm1/LayerNormalization has epsilon 1e-05, PyTorch has 1e-06" in detail
    assert detail.endswith("(14 in all)")
    tighter = {"relative_rms": 2e-6}
    assert tiny_judged(tiny, tolerances=tighter).passed
    assert failures(tiny_judged(wrong, tolerances=tighter))[1].startswith(f"{ON_CPU}logits: rel")


def other_gelu(module):
    module.act.approximate = "tanh"


def test_the_wrong_gelu(sam, sam_recipe):
    result = judged(with_model(sam, sabotaged_sam(sam_recipe, other_gelu)))
    reasons = failures(result)
    assert reasons[0].startswith("constants: act/Gelu has approximate tanh, PyTorch has none")
    assert reasons[1].startswith(f"{ON_CPU}output: relative RMS")
    assert not fp16_would_see(result)


def test_the_wrong_gelu_in_fp16_is_read_where_no_tolerance_sees_it(tiny_fp16, tiny_judged):
    def break_it(model):
        node = next(node for node in model.graph.node if node.op_type == "Gelu")
        node.attribute[0].s = b"tanh"

    result = tiny_judged(changed(tiny_fp16, break_it))
    assert [reason.partition(":")[0] for reason in failures(result)] == ["constants"]


def batch_size(model):
    """A value that is the size of the batch."""
    model.graph.node.insert(0, helper.make_node("Shape", ["input"], ["n"], end=1))
    return "n"


def integers(model, **values):
    return [constant(model, name, np.array(value, np.int64)) for name, value in values.items()]


def first_slot_twice(model):
    """logits[1] = logits[0], where there are two."""
    n = batch_size(model)
    zero, one, two, end, axis = integers(model, zero=[0], one=[1], two=[2], end=[2**40], axis=[0])
    behind_logits(
        model,
        helper.make_node("Slice", ["right", zero, one, axis], ["first"], "first"),
        helper.make_node("Slice", ["right", two, end, axis], ["rest"], "rest"),
        helper.make_node("Concat", ["first", "first", "rest"], ["all"], "all", axis=0),
        helper.make_node("Slice", ["all", zero, n, axis], ["logits"], "cut"),
    )


def leaking(model):
    """logits[i] += 0.001 (logits[i - 1] - logits[i])"""
    minus, zero, end, axis = integers(model, minus=[-1], zero=[0], end=[2**40], axis=[0])
    part = constant(model, "part", np.float32(0.001))
    behind_logits(
        model,
        helper.make_node("Slice", ["right", minus, end, axis], ["last"], "last"),
        helper.make_node("Slice", ["right", zero, minus, axis], ["others"], "others"),
        helper.make_node("Concat", ["last", "others"], ["rolled"], "rolled", axis=0),
        helper.make_node("Sub", ["rolled", "right"], ["apart"], "apart"),
        helper.make_node("Mul", ["apart", part], ["leak"], "leak"),
        helper.make_node("Add", ["right", "leak"], ["logits"], "leaked"),
    )


def only_wrong_at_32(model):
    n = batch_size(model)
    (size,) = integers(model, size=[32])
    right, wrong = (constant(model, name, np.float32(x)) for name, x in (("r", 1), ("w", 1.01)))
    behind_logits(
        model,
        helper.make_node("Equal", [n, size], ["is32"], "is32"),
        helper.make_node("Where", ["is32", wrong, right], ["factor"], "factor"),
        helper.make_node("Mul", ["right", "factor"], ["logits"], "scaled"),
    )


def behind_logits(model, *nodes):
    """What made the logits makes "right", and `nodes` the logits."""
    for node in model.graph.node:
        node.output[:] = ["right" if name == "logits" else name for name in node.output]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (first_slot_twice, "batch of 8: slot 1 is off by a relative RMS of"),
        (leaking, "batch of 8: a sample's result depends on its slot or its neighbours"),
        (only_wrong_at_32, "batch of 32: slot"),
    ],
)
def test_one_slot_of_a_batch_that_another_changes(tiny, tiny_judged, break_it, said):
    reasons = failures(tiny_judged(changed(tiny, break_it)))
    assert any(reason.startswith(ON_CPU + said) for reason in reasons), reasons
    if break_it is only_wrong_at_32:  # at no other size does it show
        assert all("batch of 32" in reason for reason in reasons)


def fed_as_nhwc(model):
    shape = constant(model, "nhwc", np.array([-1, 64, 64, 3], np.int64))
    behind(
        model,
        "input",
        helper.make_node("Reshape", ["input", shape], ["as_nhwc"], "as_nhwc"),
        helper.make_node("Transpose", ["as_nhwc"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
    )


def fed_as_bgr(model):
    order = constant(model, "bgr", np.array([2, 1, 0], np.int64))
    behind(model, "input", helper.make_node("Gather", ["input", order], ["flip"], "flip", axis=1))


def ignoring_its_input(model):
    zero = constant(model, "zero", np.float32(0))
    behind(model, "input", helper.make_node("Mul", ["input", zero], ["blank"], "blank"))


def classes_permuted(model):
    for name in ("head.weight", "head.bias"):
        value = weight(model, name)
        axis = value.shape.index(10)
        set_weight(model, name, np.roll(value, 1, axis))


@pytest.mark.parametrize(
    "break_it", [fed_as_nhwc, fed_as_bgr, ignoring_its_input, classes_permuted]
)
def test_an_artefact_that_reads_or_answers_otherwise(tiny, tiny_judged, break_it):
    result = tiny_judged(changed(tiny, break_it))
    assert failures(result)[0].startswith(f"{ON_CPU}logits: relative RMS")
    assert fp16_would_see(result)


def not_a_number(model):
    bias = weight(model, "head.bias")
    bias.flat[3] = np.nan
    set_weight(model, "head.bias", bias)


def renamed_output(model):
    behind_logits(model, helper.make_node("Identity", ["right"], ["scores"], "renamed"))
    model.graph.output[0].name = "scores"


def an_output_more(model):
    behind_logits(
        model,
        helper.make_node("Identity", ["right"], ["logits"], "same"),
        helper.make_node("Identity", ["right"], ["spare"], "spare"),
    )
    model.graph.output.append(helper.make_tensor_value_info("spare", 1, ["batch", 10]))


def in_double(model):
    behind_logits(model, helper.make_node("Cast", ["right"], ["logits"], to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def renamed_input(model):
    behind(model, "input", helper.make_node("Identity", ["image"], ["input2"], "renamed"))
    model.graph.input[0].name = "image"


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (not_a_number, "output logits: the artefact holds NaN or infinity"),
        (renamed_output, "output logits: missing; the artefact gives ['scores']"),
        (an_output_more, "the artefact has undeclared outputs ['spare']"),
        (in_double, "output logits: float64, expected float32"),
        (renamed_input, "it does not run"),
    ],
)
def test_other_ends_void_the_comparison(tiny, tiny_judged, break_it, said):
    result = tiny_judged(changed(tiny, break_it))
    (artefact,) = result.artefacts
    assert artefact.parity is None
    assert artefact.failures[0].startswith(f"parity of model.onnx: {said}")
    declared = check(result, "inputs and outputs")
    assert declared.passed == (break_it is not_a_number)
    assert declared.passed or declared.detail.startswith("model.onnx has ")


def test_in_fp16_what_does_not_run_is_no_error_of_the_machine(tiny_fp16, tiny_judged):
    reasons = failures(tiny_judged(changed(tiny_fp16, renamed_input)))
    assert any("parity of model.onnx: it does not run" in reason for reason in reasons)


def test_an_output_that_is_declared_and_missing(sam):
    spare = {"name": "spare", "dtype": "float32", "dims": ["batch", 40, 24]}
    data = with_manifest(sam, outputs=[{**spare, "name": "output"}, spare])
    reasons = failures(judged(data))
    assert any("output spare: missing; the artefact gives ['output']" in r for r in reasons)


def test_an_input_that_is_declared_and_unknown(sam):
    spare = {"name": "spare", "dtype": "float32", "dims": ["batch", 40, 24]}
    data = with_manifest(sam, inputs=[{**spare, "name": "input"}, spare])
    reasons = failures(judged(data))
    assert any("input spare: the reference does not have it" in reason for reason in reasons)
