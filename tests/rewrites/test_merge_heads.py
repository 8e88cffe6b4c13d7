import pytest
from rule_checks import apply_up_to, images, sam, smt, token_inputs
from torch import nn

from sam_deploy.rewrites.static import MergedHeads, SeparateHeads


def apply(module, **options):
    return apply_up_to("merge_heads", module, only=("static_shapes",), **options)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 12])
def test_one_convolution_of_the_largest_kernel(heads):
    result = apply(sam(12, heads))
    assert result.log.fired == [""]
    merged = result.after.local_conv
    assert isinstance(merged, MergedHeads)
    assert merged.conv.kernel_size == (2 * heads + 1, 2 * heads + 1)
    assert result.agrees(*token_inputs())


def test_other_kernels_and_no_bias():
    module = sam()
    module.local_conv_1 = nn.Conv2d(4, 4, (5, 1), padding="same", groups=4)
    module.local_conv_3 = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=4, bias=False)
    result = apply(module)
    assert result.log.fired == [""]
    assert result.after.local_conv.conv.kernel_size == (5, 5)
    assert result.agrees(*token_inputs())


def test_separate_stays_separate():
    result = apply(smt(), heads="separate", aggregation="dense")
    assert not result.log.fired
    assert isinstance(result.after.block1[0].attn.local_conv, SeparateHeads)
    assert result.agrees(images())
