"""Checkpoints as they occur, read into one plain state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sam_deploy.errors import CheckpointError
from sam_deploy.models._wording import listed, shown
from sam_deploy.models.checkpoint_file import read_content
from sam_deploy.models.pickled_values import Placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_KEYS = ("model", "state_dict", "model_state_dict", "module")  # where weights lie, the first wins
_EMA_KEYS = ("model_ema", "ema", "state_dict_ema")
_BACKBONE = "backbone."
_WRAPPERS = ("module.", "_orig_mod.", "model.", _BACKBONE)
_DEEPEST = 8  # wrappers and dicts around the weights; a file could name itself for ever
_SAVE = "Save the weights alone: torch.save(model.state_dict(), ...)"


def read_checkpoint(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """The weights in the file at `path`, under the official names; nothing in it is run.

    Their names may carry `module.`, `model.` or `backbone.`; the parts of a detector or segmenter
    beside `backbone.` are left out. `ema` as in `read_weights`.

    Returns:
        Tensors on the CPU, contiguous: floats of any width as float32, integers as they are.

    Raises:
        CheckpointError: as `read_weights`, or weights that are not finite.
    """
    weights = _official_names(read_weights(path, ema=ema))
    state = {
        name: plain(path, name, tensor, torch.float32 if tensor.is_floating_point() else None)
        for name, tensor in weights.items()
    }
    refuse_not_finite(path, state)
    return state


def read_weights(path: Path, *, ema: bool = False) -> Mapping[str, Tensor]:
    """The weights in the file at `path` as they were saved; nothing in it is run.

    They may lie under `model` or `state_dict` or be the whole file. `ema` takes the averaged copy
    (`model_ema`, `ema` or `state_dict_ema`), which is never taken otherwise.

    Returns:
        Tensors on the CPU, of no more values together than the file has bytes.

    Raises:
        CheckpointError: no such file, not a checkpoint, a damaged one, one that calls something
            when read, or no weights in it.
    """
    content, keys = read_content(path), _EMA_KEYS if ema else _KEYS
    weights = _weights_under(content, keys) if ema else _weights(content)
    if weights is None:
        raise CheckpointError(f"{path} {_no_weights(content, keys)}")
    values, size = sum(tensor.numel() for tensor in weights.values()), path.stat().st_size
    if values > size:
        raise CheckpointError(
            f"{path} expands to {values} values, but has only {size} bytes: its tensors repeat "
            "stored values. Save them with values of their own: tensor.clone()"
        )
    return weights


def plain(path: Path, name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor`, contiguous and of `dtype` (None: its own).

    Raises:
        CheckpointError: a type that torch only stores.
    """
    try:
        tensor = tensor.detach().to(dtype or tensor.dtype).contiguous()
        torch.isfinite(tensor.flatten()[:1]).all()
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds {shown(name)} as {tensor.dtype}, which "
            f"cannot be computed with ({shown(str(error))}). Save it as float32"
        ) from None
    return tensor


def refuse_not_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that no training that went well ends with.

    Raises:
        CheckpointError: naming the first tensors that hold NaN or infinity.
    """
    wrong = [name for name, tensor in state.items() if not tensor.flatten().isfinite().all()]
    if wrong:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {len(wrong)} of {len(state)} tensors: "
            f"{listed(wrong)}; expected finite weights. Use a checkpoint from before training "
            "diverged"
        )


def unwrapped(
    weights: Mapping[str, Tensor], wrappers: tuple[str, ...]
) -> Iterator[Mapping[str, Tensor]]:
    """`weights` as they are, then without each prefix that all names have, the outermost first."""
    for _ in range(_DEEPEST):
        yield weights
        prefix = next((w for w in wrappers if all(name.startswith(w) for name in weights)), None)
        if prefix is None:
            return
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def _weights(content: object, depth: int = _DEEPEST) -> Mapping[str, Tensor] | None:
    if not isinstance(content, Mapping) or not content or depth == 0:
        return None
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return content
    return _weights_under(content, _KEYS, depth - 1)


def _weights_under(
    content: object, keys: tuple[str, ...], depth: int = _DEEPEST
) -> Mapping[str, Tensor] | None:
    found = (_weights(value, depth) for value in _values(content, keys))
    return next((weights for weights in found if weights is not None), None)


def _values(content: object, keys: tuple[str, ...]) -> list[object]:
    return [content[key] for key in keys if key in content] if isinstance(content, Mapping) else []


def _no_weights(content: object, keys: tuple[str, ...]) -> str:
    for value in (content, *_values(content, keys)):
        if isinstance(value, Placeholder) and value.is_module:
            return (
                f"holds a whole pickled module ({shown(value.name)}): to load it is to run its "
                f"class, so nothing of it was; expected its weights. {_SAVE}"
            )
    what, under = _describe(content), ", ".join(keys)
    if keys == _EMA_KEYS:
        return (
            f"holds no averaged (EMA) weights: {what}; expected a state dict under {under}. "
            "Leave out --ema to take the plain weights"
        )
    remedy = "Use --ema to take the averaged copy" if _values(content, _EMA_KEYS) else _SAVE
    return f"holds no weights: {what}; expected a state dict, or one under {under}. {remedy}"


def _describe(content: object) -> str:
    if isinstance(content, Placeholder) and not content:
        return f"it is a pickled {shown(content.name)}"
    if isinstance(content, Mapping):
        return f"its {len(content)} keys are {listed(content)}" if content else "it is empty"
    return f"it is a {type(content).__name__}"


def _official_names(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    *_, weights = unwrapped(weights, _WRAPPERS)
    if any(name.startswith(_BACKBONE) for name in weights):
        return {
            name.removeprefix(_BACKBONE): tensor
            for name, tensor in weights.items()
            if name.startswith((_BACKBONE, "head."))
        }
    return weights
