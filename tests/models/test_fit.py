"""A checkpoint says what it is of, and its model computes what the saved one did."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sam_deploy.architecture import VARIANTS, Architecture
from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models import SAM, SMT, create_model
from sam_deploy.models.fit import Fit, infer, load_model

TINY = Architecture(
    dims=(8, 16, 24, 32),
    depths=(1, 1, 2, 1),
    mlp_ratios=(2, 2, 2, 2),
    sam_heads=(2, 2, 2),
    attention_heads=(2, 4),
)
SHAPES = json.loads((Path(__file__).parents[1] / "golden/state_dict_shapes.json").read_text())
IMAGE = torch.randn(2, 3, 64, 32)


def perturbed(model):
    """`model` with no weight left at a value that initialisation gives."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if not name.endswith("num_batches_tracked"):
                buffer.add_(0.1 * torch.rand_like(buffer))
    return model.eval()


def tiny(num_classes=5, **options):
    return perturbed(SMT(TINY, num_classes=num_classes, **options))


@pytest.fixture
def save(tmp_path):
    def to_file(state):
        torch.save({"model": state}, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return to_file


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", SHAPES)
def test_every_official_variant_is_known_by_its_shapes(name):
    variant, layer_scale = name.removesuffix("_layer_scale"), name.endswith("_layer_scale")
    assert infer(on_meta(SHAPES[name])) == Fit(variant, VARIANTS[variant], 1000, layer_scale)


def test_a_backbone_and_one_with_a_tensor_missing_are_known_too():
    shapes = {k: v for k, v in SHAPES["smt_b"].items() if not k.startswith("head.")}
    del shapes["block2.1.norm1.weight"]
    assert infer(on_meta(shapes)) == Fit("smt_b", VARIANTS["smt_b"], None, False)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"norm1.weight": torch.tensor(1.0)},
        {"local_conv_1.weight": torch.ones(1), "proj.weight": torch.ones(1)},
        {"blockx.weight": torch.ones(1)},
        SMT(TINY).state_dict(),
    ],
    ids=["empty", "scalar", "half a SAM", "odd name", "unnamed"],
)
def test_other_shapes_are_of_no_known_model(state):
    assert infer(state) is None


@pytest.mark.parametrize("layer_scale", [False, True])
@pytest.mark.parametrize("num_classes", [1, 5])
def test_the_loaded_classifier_computes_what_the_saved_one_did(save, layer_scale, num_classes):
    saved = tiny(num_classes, layer_scale=layer_scale)
    model, fit = load_model(save(saved.state_dict()), architecture=TINY)
    assert fit == Fit(None, TINY, num_classes, layer_scale)
    assert not model.training
    assert torch.equal(model(IMAGE), saved(IMAGE))


def test_a_named_variant_needs_no_name(save):
    with torch.device("meta"):
        model = create_model("smt_t", num_classes=3)
    saved = model.to_empty(device="cpu")
    for tensor in saved.state_dict().values():
        tensor.fill_(1)
    path = save(saved.state_dict())
    loaded, fit = load_model(path)
    assert fit == Fit("smt_t", VARIANTS["smt_t"], 3, False)
    assert all(tensor.eq(1).all() for tensor in loaded.state_dict().values())
    assert load_model(path, name="smt_t", num_classes=3)[1] == fit
    with pytest.raises(CheckpointError, match=r"does not fit smt_s.*use --model smt_t"):
        load_model(path, name="smt_s")
    with pytest.raises(CheckpointError, match=r"does not fit sam.*use --model smt_t"):
        load_model(path, name="sam")


@pytest.mark.parametrize("headless", [False, True])
def test_feature_maps_with_or_without_a_head_in_the_file(save, headless):
    saved = tiny()
    state = saved.state_dict()
    if headless:
        state = {k: v for k, v in state.items() if not k.startswith("head.")}
    model, fit = load_model(save(state), architecture=TINY, features=True)
    assert fit.num_classes is None
    maps = model(IMAGE)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 8), (16, 8, 4), (24, 4, 2), (32, 2, 1)]
    assert torch.equal(maps[-1].flatten(2).mean(2), saved.forward_features(IMAGE))


def test_a_backbone_is_no_classifier(save):
    saved = tiny(num_classes=0)
    path = save(saved.state_dict())
    with pytest.raises(CheckpointError, match=r"no head\.weight.*--features"):
        load_model(path, architecture=TINY)
    model, fit = load_model(path, architecture=TINY, num_classes=0)
    assert fit.num_classes == 0
    assert torch.equal(model(IMAGE), saved(IMAGE))


def test_a_class_count_that_contradicts_the_file(save):
    with pytest.raises(CheckpointError, match="head of 5 classes; expected the 1000"):
        load_model(save(tiny().state_dict()), architecture=TINY, num_classes=1000)


def test_batch_counters_may_be_missing(save):
    saved = tiny()
    state = {k: v for k, v in saved.state_dict().items() if not k.endswith("num_batches_tracked")}
    model, _ = load_model(save(state), architecture=TINY)
    assert torch.equal(model(IMAGE), saved(IMAGE))
    assert model.state_dict().keys() == saved.state_dict().keys()
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_half_precision_weights_load_as_float32(save):
    model, _ = load_model(save(tiny().half().state_dict()), architecture=TINY)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm3.bias"), r"tensors: 1 missing \(norm3\.bias\)\. "),
        (
            lambda s: s.update({"x.running_mean": torch.ones(1)}),
            r"1 unexpected \(x\.running_mean\)",
        ),
        (
            lambda s: s.update({"norm1.bias": torch.ones(9)}),
            r"1 of another shape \(norm1\.bias is \(9,\) instead of \(8,\)\)",
        ),
        (
            lambda s: s.update({"norm1.bias": torch.ones(8, dtype=torch.int8)}),
            r"norm1\.bias is \(8,\) int8 instead of \(8,\)",
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("block4")],
            r"18 missing \((block4\.0\.\S+, ){5}\.\.\.\)",
        ),
        (
            lambda s: s.update({"block1.0.gamma_1": torch.ones(8)}),
            r"9 missing \(block1\.0\.gamma_2,",
        ),
    ],
    ids=["missing", "unexpected buffer", "shape", "integer", "stage", "half a layer scale"],
)
def test_weights_that_are_not_exactly_the_model_s(save, change, message):
    state = dict(tiny().state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        load_model(save(state), architecture=TINY)


def test_an_unknown_model_must_be_described(save):
    with pytest.raises(CheckpointError, match="of no known model"):
        load_model(save(tiny().state_dict()))


@pytest.mark.parametrize("options", [{}, {"name": "sam"}])
@pytest.mark.parametrize(
    ("dim", "heads", "bias", "ratio"), [(8, 4, False, 2), (12, 3, True, 1), (6, 1, True, 3)]
)
def test_the_sam_module_on_its_own(tmp_path, options, dim, heads, bias, ratio):
    saved = perturbed(SAM(dim, heads, qkv_bias=bias, expand_ratio=ratio))
    safetensors.torch.save_file(saved.state_dict(), tmp_path / "sam.safetensors")
    model, fit = load_model(tmp_path / "sam.safetensors", **options)
    assert fit == Fit("sam", None, None, False)
    tokens = torch.randn(2, 15, dim)
    assert torch.equal(model(tokens, 5, 3), saved(tokens, 5, 3))


def test_a_sam_module_is_offered_and_takes_no_classes(save):
    path = save(SAM(8).state_dict())
    with pytest.raises(CheckpointError, match="use --model sam"):
        load_model(path, architecture=TINY, num_classes=0)
    with pytest.raises(InputError, match="no classes"):
        load_model(path, num_classes=3)


def test_an_unknown_name_and_a_name_beside_an_architecture(save):
    path = save(tiny().state_dict())
    with pytest.raises(InputError, match="Did you mean 'smt_t'"):
        load_model(path, name="smt-t")
    with pytest.raises(InputError, match="expected one of them"):
        load_model(path, name="smt_t", architecture=TINY)
