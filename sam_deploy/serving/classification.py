"""The classification extension: an output as its most likely classes.

Triton's "Classification Extension": BYTES, "score:index" or "score:index:label", best first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam_deploy.serving.datatypes import BYTES, bytes_array
from sam_deploy.serving.failures import BadRequest
from sam_deploy.serving.message import Tensor


def classified(tensor: Tensor, classes: int, names: Sequence[str]) -> Tensor:
    """The `classes` largest of each row of (B, C), as (B, k) BYTES; `names` may be none.

    Raises:
        BadRequest: the output is not (B, C), or no numbers.
    """
    array = tensor.array
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise BadRequest(
            f"output {tensor.name} is {tensor.datatype} {list(array.shape)}; classes are of "
            "(batch, classes) numbers"
        )
    best = np.argsort(-array.astype(np.float64), axis=1, kind="stable")[:, :classes]
    labels = [
        f"{array[row, i]:f}:{i}{f':{names[i]}' if i < len(names) else ''}".encode()
        for row, indices in enumerate(best)
        for i in indices
    ]
    return Tensor(tensor.name, BYTES, bytes_array(labels, best.shape))
