"""A network with outlier channels, as large Transformers have them, that computes the same."""

import re
from collections.abc import Mapping

from torch import Tensor

FACTOR = 256.0  # a power of two: only exponents change, and every float result stays as it is
PART = 16  # one channel in so many is an outlier

_READERS = {"norm1": ("attn.v", "attn.s", "attn.q", "attn.kv"), "norm2": ("mlp.fc1",)}


def with_outliers(
    state: Mapping[str, Tensor], factor: float = FACTOR, part: int = PART
) -> dict[str, Tensor]:
    """An SMT's `state` with some outputs of every block's norms `factor` times as large.

    The columns of the linears that read them are as much smaller: the network computes the same,
    but the inputs of those linears have a range that few of their channels fill.
    """
    made = {name: tensor.clone() for name, tensor in state.items()}
    for name in state:
        found = re.fullmatch(r"(block\d\.\d+\.)(norm[12])\.weight", name)
        if not found:
            continue
        block, norm = found.groups()
        made[name][::part] *= factor
        made[f"{block}{norm}.bias"][::part] *= factor
        for reader in _READERS[norm]:
            if f"{block}{reader}.weight" in made:
                made[f"{block}{reader}.weight"][:, ::part] /= factor
    return made
