"""Bundles that are whole, and whose ONNX is not in the precision that they say, or spoilt by it."""

import numpy as np
import pytest
from broken import (
    ON_CPU,
    behind,
    changed,
    check,
    constant,
    failures,
    judged,
    manifest_of,
    model_of,
    set_weight,
    weight,
    with_manifest,
    with_model,
)
from onnx import helper

pytestmark = pytest.mark.export
pytest_plugins = ["good_bundles"]

INPUT_SCALE = "block1.0.attn.proj.input_scale"
WEIGHT_SCALE = "block1.0.attn.proj.weight.scale"


def named(result):
    """The checks and artefacts that failed."""
    return {reason.partition(":")[0] for reason in failures(result)}


def relative_rms(result):
    (output,) = result.artefacts[0].parity.outputs
    return output.relative_rms


@pytest.fixture(scope="module")
def untouched(tiny_fp16, tiny_int8, tiny_checkpoint):
    """The verdict on the good ones."""
    good = {"fp16": tiny_fp16, "int8": tiny_int8}
    return {name: judged(bundle, weights=tiny_checkpoint) for name, bundle in good.items()}


def test_the_untouched_ones_pass(untouched):
    for result in untouched.values():
        assert (result.passed, result.failures) == (True, [])
        assert check(result, "FP16 range").detail.endswith("of 65504")


def halved(name):
    return lambda model: set_weight(model, name, weight(model, name) / 2)


def test_half_a_scale_of_an_input_is_told_from_its_range(tiny_int8, tiny_judged, untouched):
    """It costs little more than INT8 itself, so that no tolerance sees it."""
    result = tiny_judged(changed(tiny_int8, halved(INPUT_SCALE)))
    assert named(result) == {"precision"}
    assert "block1.0.attn.proj/Conv has the scale" in check(result, "precision").detail
    assert "(1 findings)" in check(result, "precision").detail
    assert relative_rms(result) > relative_rms(untouched["int8"])


def test_the_scale_of_another_layer(tiny_int8, tiny_judged):
    def swap(model):
        other = INPUT_SCALE.replace("block1", "block2")
        values = weight(model, INPUT_SCALE), weight(model, other)
        set_weight(model, other, values[0])
        set_weight(model, INPUT_SCALE, values[1])

    detail = check(tiny_judged(changed(tiny_int8, swap)), "precision").detail
    assert "block1.0.attn.proj/Conv has the scale" in detail
    assert "block2.0.attn.proj/Conv has the scale" in detail


def test_half_a_scale_of_a_weight(tiny_int8, tiny_judged):
    result = tiny_judged(changed(tiny_int8, halved(WEIGHT_SCALE)))
    assert failures(result)[0].startswith(f"{ON_CPU}logits: relative RMS")


def overflowing(model):
    """x 2^16 / 2^16: ONNX Runtime's CPU provider, which computes in FP32, gets it right."""
    value = next(n.output[0] for n in model.graph.node if n.name == "block2.0.attn/Mul")
    large = constant(model, "large", np.float16(2.0**15))
    small = constant(model, "small", np.float16(2.0**-15))
    behind(
        model,
        value,
        helper.make_node("Mul", [value, large], ["enlarged"], "block2.0.attn/Mul_1"),
        helper.make_node("Mul", ["enlarged", small], ["again"], "block2.0.attn/Mul_2"),
    )


@pytest.mark.parametrize("believed", [True, False])
def test_an_overflow_that_a_cpu_does_not_show(tiny_fp16, tiny_judged, untouched, believed):
    def break_it(model):
        overflowing(model)
        if not believed:  # then nothing says which of its values are FP16
            model.graph.ClearField("value_info")

    result = tiny_judged(changed(tiny_fp16, break_it))
    assert named(result) == {"FP16 range"}
    found = check(result, "FP16 range").detail
    assert found.startswith("the largest |x| in FP16 is ")
    assert "at enlarged; FP16 ends at 65504, so a GPU gives infinity there" in found
    assert relative_rms(result) == pytest.approx(relative_rms(untouched["fp16"]), rel=0.01)


def test_fp32_that_is_called_fp16(tiny, tiny_fp16, tiny_judged):
    result = tiny_judged(with_model(tiny_fp16, model_of(tiny)))
    assert named(result) == {"precision"}
    assert "computes in fp32, expected fp16" in check(result, "precision").detail


def test_fp32_that_is_called_fp16_with_islands_all_over(tiny, tiny_fp16, tiny_judged):
    model = model_of(tiny)
    modules = sorted({node.name.partition("/")[0] for node in model.graph.node})
    islands = [{"match": module, "reason": "a reason"} for module in modules]
    declared = {**manifest_of(tiny_fp16)["precision"], "islands": islands}
    result = tiny_judged(with_model(tiny_fp16, model, precision=declared))
    assert named(result) == {"precision"}
    assert "100.0% of the multiply-adds would stay in FP32" in check(result, "precision").detail


def test_floats_that_are_called_int8(tiny_fp16, tiny_int8, tiny_judged):
    result = tiny_judged(with_model(tiny_int8, model_of(tiny_fp16)))
    assert named(result) == {"precision"}
    assert "is listed as quantized, and an input of it is not" in check(result, "precision").detail

    quantization = {**manifest_of(tiny_int8)["precision"]["quantization"], "layers": []}
    unlisted = with_model(
        tiny_int8,
        model_of(tiny_fp16),
        precision={**manifest_of(tiny_int8)["precision"], "quantization": quantization},
    )
    assert check(tiny_judged(unlisted), "precision").detail == "no layer is in int8"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": {"io_dtype": "fp16"}}, "the manifest says fp16 at its ends, its recipe"),
        ({"precision": {"precision": "fp16"}}, "the manifest says fp16, its recipe fp32"),
        ({"precision": {"types_by_op": {}}}, "model.onnx computes in {'"),
    ],
)
def test_a_manifest_that_says_otherwise_than_its_recipe_or_graph(tiny, tiny_judged, changes, said):
    result = tiny_judged(with_manifest(tiny, **changes))
    assert named(result) == {"precision"}
    assert check(result, "precision").detail.startswith(said)
