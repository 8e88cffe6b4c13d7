import pytest
from rule_checks import apply_up_to, attention, images, sam, smt, token_inputs


def apply(module, projections="joined"):
    return apply_up_to("join_projections", module, projections=projections)


@pytest.mark.parametrize("bias", [True, False])
def test_v_and_s(bias):
    result = apply(sam(qkv_bias=bias))
    assert result.log.fired == [""]
    assert result.after.vs.weight.shape == (24, 12)
    assert result.after.v is None
    assert result.after.s is None
    assert result.agrees(*token_inputs())


@pytest.mark.parametrize("bias", [True, False])
def test_q_k_and_v(bias):
    result = apply(attention(bias=bias))
    assert result.after.qkv.weight.shape == (36, 12)
    assert result.after.q is result.after.k is result.after.v is None
    assert result.agrees(*token_inputs())


def test_a_bias_on_one_side_only():
    module = sam(qkv_bias=True)
    module.v.bias = None
    assert apply(module).agrees(*token_inputs())


def test_only_when_asked():
    assert not apply(smt(), "separate").log.fired
    result = apply(smt())
    assert len(result.log.fired) == 5
    assert result.agrees(images())
