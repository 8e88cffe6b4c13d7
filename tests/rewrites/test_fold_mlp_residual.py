import torch
from rule_checks import apply_up_to, images, mlp, smt, token_inputs


def apply(module):
    return apply_up_to("fold_mlp_residual", module, only=("static_shapes",))


def test_folded_into_the_centre_tap():
    module = mlp()
    result = apply(module)
    assert result.log.fired == [""]
    assert result.after.residual is False
    change = result.after.dwconv.weight - module.dwconv.dwconv.weight.double()
    centre = torch.zeros(3, 3, dtype=torch.float64)
    centre[1, 1] = 1
    torch.testing.assert_close(change, centre.expand_as(change))
    assert result.agrees(*token_inputs(6))


def test_a_convolution_that_two_share():
    network = smt()
    network.block3[0].mlp.dwconv = network.block3[1].mlp.dwconv
    result = apply(network)
    assert len(result.log.fired) == 5
    assert result.agrees(images())
