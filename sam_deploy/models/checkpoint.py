"""Checkpoints as they occur, read into one plain state dict."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sam_deploy.errors import CheckpointError
from sam_deploy.models import safe_pickle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_KEYS = ("model", "state_dict", "model_state_dict", "module")  # where weights lie, the first wins
_EMA_KEYS = ("model_ema", "ema", "state_dict_ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
_EXPECTED = "expected a checkpoint saved by torch.save or safetensors"
_LISTED = 5


def read_checkpoint(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """The weights in the file at `path`, under the official names; nothing in it is run.

    They may lie under `model` or `state_dict` or be the whole file, and their names may carry
    `module.`, `model.` or `backbone.`; the parts of a detector or segmenter beside `backbone.`
    are left out. `ema` takes the averaged copy (`model_ema`, `ema` or `state_dict_ema`), which
    is never taken otherwise.

    Returns:
        Tensors on the CPU, contiguous: floats of any width as float32, integers as they are.

    Raises:
        CheckpointError: no such file, not a checkpoint, a damaged one, one that calls something
            when read, no weights in it, or weights that are not finite.
    """
    content = _content(path)
    weights = _averaged(path, content) if ema else _weights(content)
    if weights is None:
        averaged = isinstance(content, Mapping) and any(key in content for key in _EMA_KEYS)
        remedy = "Save it again with torch.save(model.state_dict(), ...)"
        raise CheckpointError(
            f"{path} holds no weights: {_describe(content)}; expected a state dict, or one under "
            f"{', '.join(_KEYS)}. {'Use --ema to take the averaged copy' if averaged else remedy}"
        )
    state = {name: _plain(tensor) for name, tensor in _official_names(weights).items()}
    wrong = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise CheckpointError(
            f"{path} holds NaN or infinity in {len(wrong)} of {len(state)} tensors: "
            f"{listed(wrong)}; expected finite weights. Use a checkpoint from before training "
            "diverged"
        )
    return state


def listed(names: Iterable[object]) -> str:
    """The first five of `names`, for a message."""
    every = [str(name) for name in names]
    return ", ".join(every[:_LISTED]) + (", ..." if len(every) > _LISTED else "")


def _content(path: Path) -> object:
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; {_EXPECTED}. Name a file in it")
    try:
        with path.open("rb") as file:
            return _parse(path, file)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; {_EXPECTED}. Check the path") from None
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # parsers of a damaged file raise nearly anything
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} is damaged or cut short ({type(error).__name__}: {reason:.120}); {_EXPECTED}. "
            "Copy or download it again and compare its size"
        ) from None


def _parse(path: Path, file: IO[bytes]) -> object:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise CheckpointError(f"is empty; {_EXPECTED}. Copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        if "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():
            raise CheckpointError(
                f"is a TorchScript archive, which is a program; {_EXPECTED}. "
                "Save the weights alone: torch.save(model.state_dict(), ...)"
            )
        file.seek(0)
    elif head[8:9] == b"{" or path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"is a damaged safetensors file ({error}); {_EXPECTED}. Copy or download it again"
            ) from None
    elif not head.startswith(b"\x80") or tarfile.is_tarfile(file):
        raise CheckpointError(
            f"is no checkpoint: it begins with {head!r}; {_EXPECTED}. "
            "If it should be one, download it again (git-lfs keeps such files outside the tree)"
        )
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=safe_pickle)


def _weights(content: object) -> Mapping[str, Tensor] | None:
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return content
    found = (_weights(content[key]) for key in _KEYS if key in content)
    return next((weights for weights in found if weights is not None), None)


def _averaged(path: Path, content: object) -> Mapping[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _EMA_KEYS:
            weights = _weights(content.get(key))
            if weights is not None:
                return weights
    raise CheckpointError(
        f"{path} holds no averaged (EMA) weights: {_describe(content)}; expected a state dict "
        f"under {', '.join(_EMA_KEYS)}. Leave out --ema to take the plain weights"
    )


def _describe(content: object) -> str:
    if isinstance(content, safe_pickle.Placeholder) and not content:
        return f"it is a pickled {content.name}"
    if isinstance(content, Mapping):
        return f"its {len(content)} keys are {listed(content)}" if content else "it is empty"
    return f"it is a {type(content).__name__}"


def _official_names(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    for prefix in _PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if len(inside) == len(weights):
            return _official_names(inside)
        if inside and prefix == "backbone.":
            head = {k: v for k, v in weights.items() if k.startswith("head.")}
            return inside | head
    return weights


def _plain(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous()
