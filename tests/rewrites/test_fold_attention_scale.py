import pytest
from rule_checks import apply_up_to, attention, images, smt, token_inputs


def apply(module):
    return apply_up_to("fold_attention_scale", module, only=("static_shapes",))


@pytest.mark.parametrize("bias", [True, False])
def test_folded_into_q(bias):
    result = apply(attention(bias=bias))
    assert result.log.fired == [""]
    assert result.after.scale is None
    assert result.agrees(*token_inputs())


def test_another_scale():
    module = attention()
    module.scale = 0.9
    result = apply(module)
    assert result.log.fired == [""]
    assert result.agrees(*token_inputs())


def test_whole_network():
    result = apply(smt())
    assert result.log.fired == ["block3.1.attn", "block4.0.attn"]
    assert result.agrees(images())
