"""Checkpoints doctored to overflow FP16: NaN without islands, the FP32 answer with them.

ONNX Runtime's CPU provider would hide it (it computes FP16 in FP32), so the judge is ONNX's
reference evaluator, which computes FP16 in FP16.
"""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from conftest import slow
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file, save_file

from sam_deploy.agreement import relative_rms
from sam_deploy.errors import PrecisionError
from sam_deploy.exporter import export_recipe
from sam_deploy.parity.validation_data import samples_for
from sam_deploy.precision import to_fp16
from sam_deploy.reference import subject_from_recipe
from sam_deploy.rewrites import rewrite


def enlarged(state, name):
    """A factor that leaves the weights of `name` within FP16, but not what it computes."""
    factor = 6e4 / float(state[f"{name}.weight"].abs().max())
    state[f"{name}.weight"] *= factor
    state[f"{name}.bias"] *= factor
    return factor


def in_a_conv(state):
    """The SAM of stage 1: v is beyond FP16, proj brings it back."""
    state["block1.0.attn.proj.weight"] /= enlarged(state, "block1.0.attn.v")


def before_a_layer_norm(state):
    """Stage 2's embedding is beyond FP16; LayerNorm brings it back."""
    enlarged(state, "patch_embed2.proj")


def in_attention(state):
    """All products of query and key are alike and beyond FP16: softmax makes them equal parts."""
    for name in ("q", "kv"):
        weight = state[f"block4.0.attn.{name}.weight"]
        bias = state[f"block4.0.attn.{name}.bias"]
        half = len(weight) if name == "q" else len(weight) // 2  # v stays
        weight[:half] = 0
        bias[:half] = 256


DOCTORED = {
    in_a_conv: "block1.0.attn.v/Conv",
    before_a_layer_norm: "patch_embed2.proj/Conv",
    in_attention: "block4.0.attn/MatMul",
}


@pytest.fixture
def doctored(tiny_checkpoint, tiny_recipe, tmp_path):
    """Makes the recipe of a tiny SMT whose checkpoint `change` was made to."""

    def make(change, **options):
        state = load_file(tiny_checkpoint)
        change(state)
        path = tmp_path / "doctored.safetensors"
        save_file(state, path)
        return tiny_recipe(precision="fp16", weights=str(path), **options)

    return make


def evaluated(proto, x):
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(proto).run(None, {"input": x})[0]


@pytest.mark.export
@pytest.mark.parametrize("change", [in_attention, slow(in_a_conv), slow(before_a_layer_norm)])
def test_islands_save_what_would_be_nan(doctored, tmp_path, change):
    recipe = doctored(change, allow_islands=1.0)
    subject = subject_from_recipe(recipe)
    x = next(samples_for(subject, None).batches(2))
    expected = subject.run(x)["logits"]

    static, _ = rewrite(subject.module, subject.example_inputs)
    plain = tiny_graphs.lower(
        tiny_graphs.Case(subject.module, subject.example_inputs, static, ["logits"])
    )
    to_fp16(plain)
    assert not np.isfinite(evaluated(ir.to_proto(plain), x["input"])).all()

    done = export_recipe(recipe, out=tmp_path / "engines")
    model = onnx.load(done.bundle / "model.onnx")
    assert relative_rms(evaluated(model, x["input"]), expected) < 3e-3
    report = done.manifest.precision
    by_name = {island.match: island for island in report.islands}
    assert DOCTORED[change] in by_name
    assert by_name[DOCTORED[change]].largest > 65504
    assert 0 < report.island_macs < 0.5
    assert report.largest.value <= 65504 / 4
    assert done.manifest.parity[0].passed


@pytest.mark.export
def test_too_much_in_fp32_fails_unless_it_is_allowed(doctored, tmp_path):
    with pytest.raises(PrecisionError, match=r"(?s)would stay in FP32, allowed are 0.1%.*reaches"):
        export_recipe(doctored(in_a_conv, allow_islands=0.001), out=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(
    ("name", "module"),
    [("block3.0.mlp.fc2.weight", "block3.0.mlp.fc2"), slow("norm2.weight", "norm2")],
)
@pytest.mark.export
def test_a_weight_beyond_fp16_is_an_error_that_names_its_module(doctored, tmp_path, name, module):
    def one_large(state):
        state[name].view(-1)[3] = 1e5

    with pytest.raises(PrecisionError, match=rf"of module {module} holds 100000; FP16 ends at 655"):
        export_recipe(doctored(one_large, allow_islands=1.0), out=tmp_path / "engines")


@pytest.mark.export
def test_an_fp16_output_that_would_overflow_is_an_error_that_names_its_module(doctored, tmp_path):
    def large_head(state):
        state["head.bias"] += 3e4

    recipe = doctored(large_head, allow_islands=1.0, io_dtype="fp16")
    with pytest.raises(PrecisionError, match=r"output logits of module head reaches 3e\+04"):
        export_recipe(recipe, out=tmp_path / "engines")


def test_the_doctored_checkpoints_are_finite_in_fp32(doctored):
    for change in DOCTORED:
        subject = subject_from_recipe(doctored(change))
        with torch.no_grad():
            assert subject.module(subject.example_inputs[0]).isfinite().all()
