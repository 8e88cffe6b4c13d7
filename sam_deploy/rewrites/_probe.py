"""Measure whether a static module computes what the module that it was read from computes.

Structure proposes, numbers decide: a class may have all the right parts and use them otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sam_deploy.agreement import relative_rms
from sam_deploy.rewrites._rule import Refused
from sam_deploy.rewrites._run import run, tensors

FLOAT64_TOLERANCE = 1e-10  # relative RMS; float64 rounding through a whole SMT is about 1e-14


def worst_difference(actual: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest relative RMS over the outputs; infinite if their number or a shape differs."""
    if not reference or [a.shape for a in actual] != [r.shape for r in reference]:
        return float("inf")
    return max(
        relative_rms(a.double().numpy(), r.double().numpy())
        for a, r in zip(actual, reference, strict=True)
    )


def probe_tokens(module: nn.Module, static: nn.Module, channels: int) -> None:
    """Compare `forward(x, H, W)` of both on random tokens; refused if they differ."""
    height, width = 17, 19  # larger than usual windows, and no multiple of any
    x = _random(2, height * width, channels)
    _probe(module, static, (x, height, width))


def probe_images(module: nn.Module, static: nn.Module, channels: int) -> None:
    """Compare `forward(image)` of both on a random image; refused if they differ."""
    _probe(module, static, (_random(2, channels, 64, 96),))


def output_of(module: nn.Module, channels: int) -> Any:
    """What `module` returns for a random image; refused if it fails."""
    return _run(module, (_random(2, channels, 64, 96),))


def _random(*shape: int) -> Tensor:
    """Normal, with the second of the batch large enough to meet a clamp."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[1] *= 100
    return x


def _run(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    try:
        return run(module, inputs).outputs
    except Exception as error:  # a foreign forward may raise anything
        first = str(error).strip().splitlines() or [""]
        raise Refused(f"forward fails on a probe: {type(error).__name__}: {first[0]}") from None


def _probe(module: nn.Module, static: nn.Module, inputs: tuple[Any, ...]) -> None:
    difference = worst_difference(tensors(_run(static, inputs)), tensors(_run(module, inputs)))
    if not difference <= FLOAT64_TOLERANCE:
        raise Refused(
            f"its parts are those expected, but it computes something else "
            f"(relative RMS {difference:.1e} on a probe)"
        )
