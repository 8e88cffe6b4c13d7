"""Which group is not only less precise than PyTorch, but wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping

from sam_deploy.recipe import DEFAULT_TOLERANCES, Precision
from sam_deploy.verification.effects import Effect

# Parts of the error that a whole network in this precision is usually allowed.
_TOO_MUCH = 0.75
_NOTABLE = 0.25
_STANDS_OUT = 7.0  # times what others make; in sound networks no group was found beyond 6
_ENOUGH = 8  # others, to know what is usual


def first_jump(
    effects: Mapping[str, Effect], precision: Precision, quantized: Collection[str]
) -> str | None:
    """The first group that alone makes most of what a whole network is allowed; or a part of it,
    and much more than the other groups do in its own precision, which is that of the `quantized`
    or that of the others. None where the error grows evenly.
    """
    allowed = DEFAULT_TOLERANCES[precision].relative_rms
    for group, effect in effects.items():
        peers = [
            other.own
            for name, other in effects.items()
            if name != group and (name in quantized) == (group in quantized)
        ]
        usual = statistics.median(peers) if len(peers) >= _ENOUGH else math.inf
        stands_out = effect.own > _STANDS_OUT * usual
        least = _NOTABLE if stands_out else _TOO_MUCH
        if effect.at_outputs > least * allowed:
            return group
    return None
