"""A checkpoint with tensors missing says which known model it nearly is, and what is missing."""

import json
from pathlib import Path

import pytest
import torch

from sam_deploy.errors import CheckpointError
from sam_deploy.models import SAM
from sam_deploy.models.fit import explain_misfit, infer, load_model

GOLDEN = Path(__file__).parents[1] / "golden"
SHAPES = json.loads((GOLDEN / "state_dict_shapes.json").read_text())
PATH = Path("c.pth")


def state_of(name, *dropped):
    return {
        key: torch.empty(shape, dtype=torch.float32 if shape else torch.int64, device="meta")
        for key, shape in SHAPES[name].items()
        if not key.startswith(dropped)
    }


SPARSE = ("block3.7.", "block3.17.", "block3.27.", "patch_embed1.conv.0.")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "dropped"), [*((name, ("norm3.",)) for name in SHAPES), ("smt_s", SPARSE)]
)
def test_a_partial_checkpoint_is_nearest_to_its_model(name, dropped):
    state = state_of(name, *dropped)
    assert infer(state) is None
    said = explain_misfit(PATH, state)
    assert said.startswith("c.pth has the shapes of no known model. It is nearest to ")
    held = f"of whose {len(SHAPES[name])} tensors it holds {len(state)}: "
    assert f"nearest to {name.removesuffix('_layer_scale')}, {held}" in said
    assert f"{len(SHAPES[name]) - len(state)} missing (" in said
    assert "unexpected" not in said


def test_what_is_too_much_and_of_another_shape_is_named_too():
    state = state_of("smt_t", "norm3.")
    state |= {"extra.weight": torch.ones(1), "head.bias": torch.ones(7)}
    said = explain_misfit(PATH, state)
    assert "1 unexpected (extra.weight)" in said
    assert "1 of another shape (head.bias is (7,) instead of (1000,))" in said


@pytest.mark.parametrize("dropped", ["proj.weight", "local_conv_1.weight"])
def test_a_partial_sam(dropped):
    state = SAM(256).state_dict()
    del state[dropped]
    said = explain_misfit(PATH, state)
    assert "nearest to sam, " in said
    assert f"1 missing ({dropped})" in said


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"conv1.weight": torch.ones(1)},
        {"norm1.weight": torch.ones(5), "head.weight": torch.ones(1)},
    ],
    ids=["empty", "another network", "an SMT of other sizes"],
)
def test_what_is_near_to_nothing_is_not_said_to_be(state):
    said = explain_misfit(PATH, state)
    assert "nearest" not in said
    assert "expected the sizes of smt_t, smt_s, smt_b, smt_l, sam" in said


def test_loading_says_it(tmp_path):
    state = SAM(256).state_dict()
    del state["proj.weight"]
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"nearest to sam, .*1 missing \(proj\.weight\)"):
        load_model(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "shapes",
    [
        {"proj.weight": (10**9, 0), "local_conv_1.weight": (1, 0), "proj0.weight": (10**9, 0)},
        {"proj.weight": (2**16, 1), "local_conv_1.weight": (1, 1), "proj0.weight": (2**17, 1)},
        {"proj.weight": (7, 7), "local_conv_1.weight": (3, 1), "proj0.weight": (14, 1)},
        {"proj.weight": (8, 8), "local_conv_1.weight": (2, 1), "proj0.weight": (1, 1)},
    ],
    ids=["a billion empty heads", "many heads", "a part of a head", "no expansion"],
)
def test_a_sam_that_cannot_be_is_not_built(shapes):
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    assert infer(state) is None
    assert "no known model" in explain_misfit(PATH, state)
