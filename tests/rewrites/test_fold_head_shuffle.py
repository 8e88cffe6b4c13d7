import pytest
from rule_checks import apply_up_to, images, sam, smt, token_inputs


def apply(module, heads="merged", aggregation="grouped", only=None):
    return apply_up_to("fold_head_shuffle", module, only, heads=heads, aggregation=aggregation)


@pytest.mark.parametrize(
    ("heads", "aggregation"),
    [("merged", "grouped"), ("merged", "dense"), ("separate", "dense")],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("number", [1, 3, 4, 12])
def test_folded(heads, aggregation, bias, number):
    result = apply(sam(12, number, qkv_bias=bias), heads, aggregation)
    assert result.log.fired == [""]
    assert result.after.shuffle is None
    assert result.agrees(*token_inputs())


def test_refuses_between_separate_and_grouped():
    result = apply(sam(), only=("static_shapes",))  # neither merged nor dense
    assert result.reasons[""] == "its heads are separate and its aggregation is grouped"
    assert result.after.shuffle is not None
    assert result.agrees(*token_inputs())


def test_whole_network():
    result = apply(smt())
    assert result.log.fired == ["block1.0.attn", "block2.0.attn", "block3.0.attn"]
    assert result.agrees(images())
