import official_style
import torch
from rule_checks import apply_up_to, count, images, smt
from torch import nn


def apply(module):
    return apply_up_to("inference_only", module)


def test_dropout_and_drop_path_are_gone():
    result = apply(smt())
    assert "block1.0.drop_path" in result.log.fired
    assert "block3.1.attn.attn_drop" in result.log.fired
    assert not result.log.refused
    assert count(result.after, nn.Dropout | official_style.DropPath) == 0
    assert result.agrees(images())


def test_every_dropout_of_torch():
    drops = [nn.Dropout(), nn.Dropout2d(), nn.Dropout3d(), nn.AlphaDropout()]
    result = apply(nn.Sequential(nn.Conv2d(3, 3, 1), *drops))
    assert result.log.fired == ["1", "2", "3", "4"]
    assert result.agrees(images())


def test_refuses_a_drop_prob_that_scales():
    class Scaling(nn.Module):
        drop_prob = 0.5

        def forward(self, x):
            return x * (1 - self.drop_prob)

    result = apply(nn.Sequential(Scaling()))
    assert "computes something else" in result.reasons["0"]


def test_refuses_a_dropout_that_never_stops():
    class Always(nn.Dropout):
        def forward(self, x):
            return torch.dropout(x, self.p, True)

    assert "computes something else" in apply(nn.Sequential(Always())).reasons["0"]


def test_refuses_a_drop_prob_with_parameters():
    layer = nn.Linear(3, 3)
    layer.drop_prob = 0.1
    assert "not a drop path" in apply(nn.Sequential(layer)).reasons["0"]
