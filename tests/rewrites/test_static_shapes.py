import re

import official_style
import pytest
import torch
from conftest import golden
from rule_checks import (
    ARCHITECTURE,
    apply_up_to,
    attention,
    block,
    images,
    mlp,
    sam,
    smt,
    token_inputs,
)
from torch import nn

from sam_deploy.rewrites.static import (
    StaticAttention,
    StaticBlock,
    StaticMlp,
    StaticSAM,
    StaticSMT,
)


def apply(module):
    return apply_up_to("static_shapes", module, only=())


@pytest.mark.parametrize(
    ("make", "kind", "dim"),
    [
        (sam, StaticSAM, 12),
        (attention, StaticAttention, 12),
        (mlp, StaticMlp, 6),
        (block, StaticBlock, 12),
        (lambda: block(layer_scale=True), StaticBlock, 12),
    ],
)
def test_token_modules(make, kind, dim):
    result = apply(make())
    assert isinstance(result.after, kind)
    assert result.log.fired == [""]
    assert result.agrees(*token_inputs(dim))
    assert result.agrees(*token_inputs(dim, height=1, width=9))


@pytest.mark.parametrize("layer_scale", [False, True])
def test_whole_networks(layer_scale):
    result = apply(smt(layer_scale=layer_scale))
    assert isinstance(result.after, StaticSMT)
    assert result.agrees(images())
    assert result.agrees(images(96, 32))


def test_backbone():
    result = apply(golden(official_style.Backbone(ARCHITECTURE)))
    assert isinstance(result.after, StaticSMT)
    assert result.agrees(images())
    assert type(result.after(images().double())) is list


def test_plain_settings_are_kept():
    # the network around may read them
    result = apply(sam())
    assert result.after.ca_num_heads == 3
    assert apply(smt()).after.num_classes == 5


def spoiled(module, **parts):
    for name, part in parts.items():
        setattr(module, name, part)
    return module.eval()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (spoiled(sam(), ca_num_heads=2), "ca_num_heads is 2, but there are 3"),
        (spoiled(sam(), v=nn.Identity()), "v is Identity, expected Linear"),
        (spoiled(sam(), bn=nn.GroupNorm(1, 24)), "bn is GroupNorm"),
        (spoiled(sam(), proj0=nn.Conv2d(12, 24, 1)), "proj0 has 1 groups, expected 4"),
        (spoiled(sam(), proj1=nn.Conv2d(24, 12, 3, padding=1)), "proj1 is not a 1x1"),
        (spoiled(sam(), local_conv_2=nn.Conv2d(4, 4, 5, padding=2)), "not a depthwise"),
        (spoiled(sam(), act=nn.PReLU()), "act is PReLU"),
        (spoiled(sam(), ca_attention=0), "ca_attention is not 1"),
        (spoiled(attention(), ca_attention=1), "ca_attention is not 0"),
        (spoiled(attention(), sa_num_heads=5), "sa_num_heads is 5"),
        (spoiled(attention(), kv=nn.Linear(12, 12)), "kv has 12 outputs, expected 24"),
        (spoiled(attention(), scale=nn.Parameter(torch.ones(3, 1, 1))), "scale is Parameter"),
        (spoiled(block(), gamma_1=0.5), "gamma_1 is 0.5"),
        (spoiled(block(), gamma_2=nn.Parameter(torch.tensor(0.5))), r"gamma_2 has shape \(\)"),
        (spoiled(block(), norm1=nn.LayerNorm(12, elementwise_affine=False)), "norm1 is not a"),
        (spoiled(mlp(), dwconv=nn.Identity()), "dwconv is NoneType"),
        (spoiled(smt(), norm2=nn.Identity()), "norm2 is Identity, expected LayerNorm"),
        (spoiled(smt(), num_stages="four"), "forward fails on a probe: TypeError"),
        (spoiled(smt(), patch_embed1=nn.Identity()), "patch_embed1 has no convolution"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refuses_other_parts(module, reason):
    assert re.search(reason, apply(module).reasons[""])


def test_refuses_what_computes_otherwise():
    class Scaled(official_style.PastedSAM):
        def forward(self, x, H, W):
            return 1.0001 * super().forward(x, H, W)

    result = apply(golden(Scaled(12, 3)))
    assert "computes something else" in result.reasons[""]
    assert result.agrees(*token_inputs())


def test_refuses_what_clamps_large_values():
    class Clamped(official_style.Mlp):
        def forward(self, x, H, W):
            return super().forward(x.clamp(-20, 20), H, W)

    assert "computes something else" in apply(golden(Clamped(6, 10))).reasons[""]


def test_refuses_another_signature():
    class Square(official_style.PastedSAM):
        def forward(self, x):
            side = int(x.shape[1] ** 0.5)
            return super().forward(x, side, side)

    assert "forward fails on a probe: TypeError" in apply(golden(Square(12, 3))).reasons[""]


def test_a_refused_block_still_gives_its_parts():
    result = apply(spoiled(smt(), num_stages=None))
    assert "" in result.reasons
    assert "block1.0" in result.log.fired
    assert result.log.fired[0] != ""


def test_one_bad_block_is_named():
    network = smt()
    network.block2[0].gamma_1 = 2.0
    result = apply(network)
    assert result.reasons[""].startswith("block2.0: gamma_1 is 2.0")
    assert set(result.reasons) == {"", "block2.0"}
    assert {"block2.0.attn", "block2.0.mlp", "block3.1"} <= set(result.log.fired)
    assert result.agrees(images())
