"""The two operations that care about the layout: a linear map over channels and LayerNorm."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sam_deploy.rewrites.static.layout import Layout

PointwiseForm = Literal["conv", "matmul", "gemm"]


class Pointwise(nn.Module):
    """y[..., o] = sum_c W[o, c] x[..., c] + b[o]: one Linear, in one of three equal forms.

    `conv` takes images (a 1x1 convolution, weight (O, C, 1, 1)); `matmul` and `gemm` take tokens
    (weight (O, C)), the latter flattened to two dimensions.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, form: PointwiseForm = "matmul") -> None:
        super().__init__()
        shape = (*weight.shape[:2], 1, 1) if form == "conv" else weight.shape[:2]
        self.form = form
        self.weight = nn.Parameter(weight.detach().reshape(shape), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @classmethod
    def of(cls, linear: nn.Module) -> Pointwise:
        """The same map as `linear`, on tokens."""
        weight, bias = linear.weight, linear.bias
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        return cls(weight, bias)

    def as_form(self, form: PointwiseForm) -> Pointwise:
        """The same map in another form."""
        return Pointwise(self.weight.flatten(1), self.bias, form)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x`, an image for `conv` and tokens otherwise."""
        if self.form == "conv":
            return F.conv2d(x, self.weight, self.bias)
        if self.form == "matmul":
            return F.linear(x, self.weight, self.bias)
        height, width, channels = x.shape[1:]
        y = F.linear(x.reshape(-1, channels), self.weight, self.bias)
        return y.reshape(-1, height, width, y.shape[1])

    def extra_repr(self) -> str:
        """Sizes and form, for a printed module."""
        out, channels = self.weight.shape[:2]
        return f"{channels}, {out}, form={self.form}"


class Norm(nn.Module):
    """LayerNorm over the channels of a four-dimensional `source` layout, giving `target`.

    `anchor`, where there is one, is a convolution that leaves the image which comes out as it is.
    """

    def __init__(self, norm: nn.LayerNorm, source: Layout, target: Layout) -> None:
        super().__init__()
        self.weight = norm.weight
        self.bias = norm.bias
        self.eps = norm.eps
        self.source = source
        self.target = target
        self.anchor: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (in `source`) over its channels."""
        tokens = self.source.to(Layout.TOKENS, x)
        y = F.layer_norm(tokens, (tokens.shape[-1],), self.weight, self.bias, self.eps)
        y = Layout.TOKENS.to(self.target, y)
        return y if self.anchor is None else self.anchor(y)
