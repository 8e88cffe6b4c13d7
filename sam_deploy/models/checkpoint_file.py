"""What lies in a checkpoint's file, whichever format it is of; nothing in it is run."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from sam_deploy.errors import CheckpointError, MachineError
from sam_deploy.models._wording import shown
from sam_deploy.models.torch_file import read_legacy, read_zip

if TYPE_CHECKING:
    from pathlib import Path

_EXPECTED = "expected a checkpoint saved by torch.save or safetensors"


def read_content(path: Path) -> object:
    """The object that was saved at `path`: plain values, tensors, and placeholders for the rest.

    Raises:
        CheckpointError: no such file, not a checkpoint, a damaged one, or one that calls something
            when read or takes more memory than it is long.
        MachineError: it is a safetensors file, and safetensors is not installed.
    """
    try:
        if not path.is_file():
            raise CheckpointError(_no_file(path))
        with path.open("rb") as file:
            return _parse(path, file)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except MachineError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # parsers of a damaged file raise nearly anything
        reason = f"{type(error).__name__}: {shown(' '.join(str(error).split()))}"
        raise CheckpointError(
            f"{path} is damaged or cut short ({reason}); {_EXPECTED}. "
            "Copy or download it again and compare its size"
        ) from None


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"is a directory; {_EXPECTED}. Name a file in it"
    if path.exists():
        return f"is a pipe or a device; {_EXPECTED}. Write it to a file first"
    return f"does not exist; {_EXPECTED}. Check the path"


def _parse(path: Path, file: IO[bytes]) -> object:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise CheckpointError(f"is empty; {_EXPECTED}. Copy or download it again")
    if head.startswith(b"PK\x03\x04"):
        return read_zip(file)
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return _safetensors(path)
    if head.startswith(b"\x80"):
        return read_legacy(file)
    raise CheckpointError(
        f"is no checkpoint: it begins with {head!r}; {_EXPECTED}. "
        "If it should be one, download it again (git-lfs keeps such files outside the tree)"
    )


def _safetensors(path: Path) -> object:
    try:  # who reads other checkpoints does without it
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MachineError("safetensors is not installed. Run: pip install safetensors") from None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"is a damaged safetensors file ({shown(str(error))}); {_EXPECTED}. "
            "Copy or download it again"
        ) from None
