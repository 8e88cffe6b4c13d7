import pytest
import torch
from rule_checks import apply_up_to, images, sam, smt, token_inputs

NEEDS = ("static_shapes", "fold_batch_norm")


def apply(module, only=NEEDS, aggregation="dense"):
    return apply_up_to("dense_aggregation", module, only=only, aggregation=aggregation)


@pytest.mark.parametrize("only", [NEEDS, NEEDS[:1]], ids=["folded", "with_norm"])
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_block_diagonal(heads, only):
    result = apply(sam(12, heads, expand_ratio=3), only)
    assert result.log.fired == [""]
    dense = result.after.proj0
    assert dense.groups == 1
    groups = 12 // heads
    assert torch.count_nonzero(dense.weight) == dense.weight.numel() // groups
    assert result.agrees(*token_inputs())


def test_without_bias():
    module = sam()
    module.proj0.bias = None
    assert apply(module, NEEDS[:1]).agrees(*token_inputs())


def test_one_group_is_dense_already():
    assert not apply(sam(12, 12)).log.fired


@pytest.mark.parametrize(("dim", "heads"), [(32, 4), (48, 4), (64, 8)])
def test_groups_of_16_channels(dim, heads):
    result = apply(sam(dim, heads), aggregation="blocked")
    assert result.log.fired == [""]
    blocked = result.after.proj0
    assert blocked.in_channels // blocked.groups == 16
    assert torch.count_nonzero(blocked.weight) == blocked.weight.numel() * heads // 16
    assert result.agrees(*token_inputs(dim=dim))


@pytest.mark.parametrize(("dim", "heads"), [(24, 4), (36, 3), (32, 16)])
def test_no_blocks(dim, heads):
    result = apply(sam(dim, heads), aggregation="blocked")
    assert not result.log.fired
    ((_, reason),) = result.log.refused
    assert "make no blocks of 16" in reason


def test_only_when_asked():
    result = apply(smt(), aggregation="grouped")
    assert not result.log.fired
    assert result.after.block1[0].attn.proj0.groups == 4
    assert apply(smt()).agrees(images())
