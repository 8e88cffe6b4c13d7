"""The models take any size, class count and architecture, and refuse what they cannot be."""

import msgspec
import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.architecture import STRIDES, Architecture
from sam_deploy.errors import InputError
from sam_deploy.models import SAM, SMT, create_model, list_models

MILLIONS = {"smt_t": 11.51, "smt_s": 22.55, "smt_b": 32.04, "smt_l": 80.59}  # the paper's


def test_list_models():
    assert list_models() == ["smt_t", "smt_s", "smt_b", "smt_l", "sam"]


@pytest.mark.parametrize("name", MILLIONS)
def test_parameter_counts(name):
    with torch.device("meta"):
        model = create_model(name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == MILLIONS[name]


def test_create_model_is_in_evaluation_mode():
    assert not create_model("smt_t", num_classes=2).training
    sam = create_model("sam")
    assert isinstance(sam, SAM)
    assert not sam.training
    assert sam.dim == 256


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smt_tt", {}, "Did you mean 'smt_t'"),
        ("SMT-B", {}, "smt_t, smt_s, smt_b, smt_l, sam"),
        ("smt_t", {"num_classes": -1}, "num_classes is -1"),
        ("sam", {"num_classes": 10}, "no classes"),
        ("sam", {"layer_scale": True}, "layer scale"),
        ("sam", {"features": True}, "feature maps"),
    ],
)
def test_create_model_errors(name, options, message):
    with pytest.raises(InputError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize(
    "options",
    [{"dim": 10}, {"dim": 0}, {"dim": 8, "ca_num_heads": 0}, {"dim": 8, "expand_ratio": 0}],
)
def test_sam_refuses(options):
    with pytest.raises(InputError, match="SAM takes a dim"):
        SAM(**options)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(32, 97), width=st.integers(32, 97), batch=st.integers(1, 2))
def test_any_image_size(tiny_model, height, width, batch):
    model = tiny_model(features=True)
    with torch.no_grad():
        maps = model(torch.zeros(batch, 3, height, width))
    assert [m.shape[:2] for m in maps] == [(batch, dim) for dim in TINY["dims"]]
    for feature, stride in zip(maps, STRIDES, strict=True):
        # the stem halves with rounding up, then down; the later stages round up
        for size, got in zip((height, width), feature.shape[2:], strict=True):
            assert size // stride <= got <= -(-size // stride)


@pytest.mark.parametrize(("classes", "width"), [(0, 32), (1, 1), (7, 7)])
def test_class_counts(tiny_model, classes, width):
    assert tiny_model(num_classes=classes)(torch.zeros(2, 3, 32, 48)).shape == (2, width)


def test_pooled_features_are_the_mean_of_the_last_map(tiny_model):
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        pooled = tiny_model(num_classes=0)(image)
        maps = tiny_model(features=True)(image)
    torch.testing.assert_close(pooled, maps[-1].mean(dim=(2, 3)))


def test_layer_scale_starts_small_and_matters(tiny_model):
    model = tiny_model(layer_scale=True)
    fresh = SMT(model.architecture, layer_scale=True)
    torch.testing.assert_close(fresh.block1[0].gamma_1, torch.full((8,), 1e-4))
    image = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(model(image), tiny_model()(image))


def test_mixers_alternate_in_stage_3():
    wide = SMT(msgspec.convert({**TINY, "depths": [1, 1, 5, 2]}, Architecture))
    kinds = [["SAM" if hasattr(b.attn, "bn") else "A" for b in wide.block3]]
    assert kinds == [["SAM", "A", "SAM", "A", "SAM"]]
    assert not any(hasattr(block.attn, "bn") for block in wide.block4)


def test_custom_architecture():
    custom = {**TINY, "stem_kernel": 5, "expand_ratio": 3, "mlp_ratios": [1, 2, 3, 4]}
    model = SMT(msgspec.convert(custom, Architecture), num_classes=3).eval()
    assert model.patch_embed1.conv[0].kernel_size == (5, 5)
    assert model.block2[0].attn.proj0.out_channels == 48
    assert model.block4[0].mlp.fc1.out_features == 128
    assert model(torch.zeros(1, 3, 33, 40)).shape == (1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sam_heads": [3, 4, 3]}, r"dims\[0\] = 8 is not divisible by sam_heads\[0\] = 3"),
        ({"attention_heads": [2, 5]}, r"dims\[3\] = 32 .* attention_heads\[1\] = 5"),
        ({"stem_kernel": 4}, "stem_kernel = 4 must be odd"),
        ({"dims": [8, 16, 24]}, "length 4"),
        ({"depths": [1, 0, 1, 1]}, ">= 1"),
        ({"expand_ratio": 0}, ">= 1"),
        ({"heads": 4}, "unknown field `heads`"),
    ],
)
def test_architecture_refuses(change, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({**TINY, **change}, Architecture)
