"""The models compute what the official implementation computed, and carry its names."""

import json

import numpy as np
import official_style
import pytest
import torch
from conftest import GOLDEN, golden
from weights import golden_input

from sam_deploy.architecture import VARIANTS
from sam_deploy.models import SAM, create_model

TOLERANCE = 2e-5  # absolute; two correct float32 implementations differ by about 2e-6


def expected(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def computed(module, *shape, args=()):
    with torch.no_grad():
        return module(torch.from_numpy(golden_input(*shape)), *args)


def assert_close(actual, reference):
    assert actual.shape == reference.shape
    np.testing.assert_allclose(actual, reference, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "batch"), [("smt_t", 2), ("smt_s", 1)])
def test_classifier(name, batch):
    logits = computed(golden(create_model(name)), batch, 3, 224, 224)
    assert_close(logits.numpy(), expected(f"{name}_224")["logits"])


@pytest.mark.slow
def test_large_classifier_with_layer_scale():
    logits = computed(golden(create_model("smt_l", layer_scale=True)), 1, 3, 384, 384)
    assert_close(logits.numpy(), expected("smt_l_384_layerscale")["logits"])


@pytest.mark.parametrize(
    "make",
    [lambda: create_model("smt_t", features=True), lambda: official_style.Backbone(SMT_T)],
    ids=["ours", "official_style"],
)
def test_feature_maps(make):
    maps = computed(golden(make()), 1, 3, 128, 160)
    for stage, feature in enumerate(maps, start=1):
        assert_close(feature.numpy(), expected("smt_t_features_128x160")[f"stage{stage}"])


@pytest.mark.parametrize("make", [SAM, official_style.PastedSAM])
def test_sam(make):
    reference = expected("sam_dim256_32x32")
    output = computed(golden(make(256)), 3, 1024, 256, args=(32, 32))
    assert_close(output[:, reference["rows"]].numpy(), reference["output"])


def test_official_style_classifier():
    logits = computed(golden(official_style.SMT(SMT_T)), 2, 3, 224, 224)
    assert_close(logits.numpy(), expected("smt_t_224")["logits"])


SMT_T = VARIANTS["smt_t"]
SHAPES = json.loads((GOLDEN / "state_dict_shapes.json").read_text())


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_are_the_official_ones(name):
    with torch.device("meta"):
        model = create_model(name.removesuffix("_layer_scale"), layer_scale="layer_scale" in name)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == SHAPES[name]


def test_sam_names_and_shapes_are_the_official_ones():
    shapes = json.loads((GOLDEN / "sam_state_dict_shapes.json").read_text())
    assert {k: list(v.shape) for k, v in SAM(256).state_dict().items()} == shapes
