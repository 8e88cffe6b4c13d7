import pytest
from rule_checks import apply_up_to, attention, block, images, sam, smt, token_inputs

from sam_deploy.rewrites.static import Layout, Pointwise
from sam_deploy.rewrites.static.token_module import TokenModule


def apply(module, linear, projections="separate"):
    return apply_up_to("linear_form", module, linear=linear, projections=projections)


@pytest.mark.parametrize("projections", ["joined", "separate"])
@pytest.mark.parametrize("linear", ["conv", "gemm"])
@pytest.mark.parametrize("make", [sam, attention, block])
def test_modules(make, linear, projections):
    result = apply(make(), linear, projections)
    assert result.log.fired == [""]
    forms = {m.form for m in result.after.modules() if isinstance(m, Pointwise)}
    assert forms == {linear}
    assert result.agrees(*token_inputs())


@pytest.mark.parametrize(("linear", "layout"), [("conv", Layout.IMAGE), ("gemm", Layout.TOKENS)])
def test_whole_network(linear, layout):
    result = apply(smt(), linear)
    assert result.log.fired == [""]
    inner = [m for m in result.after.modules() if isinstance(m, TokenModule)]
    assert {m.layout for m in inner} == {layout}
    assert result.agrees(images())


def test_matmul_is_what_it_was():
    assert not apply(smt(), "matmul").log.fired
