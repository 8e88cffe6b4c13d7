import pytest
from rule_checks import apply_up_to, count, images, sam, smt, token_inputs
from torch import nn


def apply(module):
    return apply_up_to("fold_batch_norm", module, only=("static_shapes",))


def test_none_is_left():
    result = apply(smt())
    assert result.log.fired == ["patch_embed1", "block1.0.attn", "block2.0.attn", "block3.0.attn"]
    assert count(result.after, nn.BatchNorm2d) == 0
    assert result.agrees(images())


@pytest.mark.parametrize("options", [{"affine": False}, {"eps": 0.1}])
@pytest.mark.parametrize("bias", [True, False])
def test_other_batch_norms(options, bias):
    module = sam()
    module.bn = nn.BatchNorm2d(24, **options).eval()
    module.bn.running_var.uniform_(0.1, 4)
    if not bias:
        module.proj0.bias = None
    result = apply(module)
    assert result.log.fired == [""]
    assert result.agrees(*token_inputs())


def test_refuses_without_running_statistics():
    module = sam()
    module.bn = nn.BatchNorm2d(24, track_running_stats=False)
    result = apply(module)
    assert result.reasons[""] == "its BatchNorm keeps no running statistics"
    assert result.agrees(*token_inputs())


@pytest.mark.parametrize("custom", [False, True])
def test_refuses_a_stem_without_conv_before_norm(custom):
    class Residual(nn.Sequential):
        def forward(self, x):
            x = self[0](x)
            return self[3](self[1](x) + x)

    network = smt()
    conv, norm, relu, down = network.patch_embed1.conv
    network.patch_embed1.conv = (
        Residual(conv, norm, relu, down) if custom else nn.Sequential(conv, relu, norm, down)
    )
    result = apply(network.eval())
    assert "convolution" in result.reasons["patch_embed1"]
    assert result.agrees(images())
