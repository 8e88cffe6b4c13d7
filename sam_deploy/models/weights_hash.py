"""What a set of weights is, as one hash."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over the sorted names, dtypes, shapes and little-endian values of `state`.

    Tensors may have any dtype, shape, strides and device. The order, the strides and the file
    format they were saved in do not enter, nor does `num_batches_tracked`, which inference never
    reads. One changed bit of any other tensor changes the hash.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.rpartition(".")[2] == "num_batches_tracked":
            continue
        if not isinstance(state[name], torch.Tensor):
            continue  # `get_extra_state` may give anything
        tensor = state[name].detach().cpu()
        # one JSON line a tensor: no name can be mistaken for the values of another
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode() + b"\n")
        # a clone, as `contiguous` keeps odd strides where there is at most one value
        flat = tensor.reshape(-1).clone(memory_format=torch.contiguous_format)
        raw = flat.view(torch.uint8)
        if sys.byteorder == "big":
            raw = raw.reshape(-1, tensor.element_size()).flip(1).contiguous()
        digest.update(raw.numpy().data)
    return digest.hexdigest()
