"""The two formats of `torch.save`, read without `torch.load`.

Every byte that is read here lies in the file, and no more memory is taken for tensors than the file
is long: whatever sizes it claims are held against its own first.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from typing import IO, Any

import torch

from sam_deploy.errors import CheckpointError
from sam_deploy.models import safe_pickle
from sam_deploy.models._wording import shown
from sam_deploy.models.bounded_pickle import MAX_BYTES, refuse_size
from sam_deploy.models.pickled_values import STORAGE_DTYPES, Global, Storage

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # first in the format before the zip's
_BIG_ENDIAN = "was saved on a big-endian machine. Load it there and save it as safetensors"


def read_zip(file: IO[bytes]) -> object:
    """The object in an archive as torch.save writes it since 1.6.

    Raises:
        CheckpointError: it is a program, unpacks to more than it is, or its pickle is refused.
    """
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive.infolist(), os.fstat(file.fileno()).st_size)
        if entries.get("byteorder") and archive.read(entries["byteorder"]) != b"little":
            raise CheckpointError(_BIG_ENDIAN)
        read: dict[str, torch.UntypedStorage] = {}

        def storage(kind: Global, key: str, *_: object) -> Storage:
            if key not in read:
                entry = entries[f"data/{key}"]
                read[key] = _allocated(entry.file_size)
                with archive.open(entry) as data:
                    _fill(read[key], data)
            return Storage(read[key], _dtype(kind))

        if entries["data.pkl"].file_size > MAX_BYTES:
            refuse_size()
        return safe_pickle.load(io.BytesIO(archive.read(entries["data.pkl"])), storage)


def _entries(listed: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, without the folder that all lie in; nothing has been unpacked yet."""
    entries = {entry.filename.partition("/")[2]: entry for entry in listed}
    if "constants.pkl" in entries:
        raise CheckpointError(
            "is a TorchScript archive, which is a program; expected weights. "
            "Save them alone: torch.save(model.state_dict(), ...)"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in listed):
        raise CheckpointError(
            "is a compressed archive; expected one of torch.save, which never compresses, so "
            "nothing was unpacked. If it is yours, pack it again without compression (zip -0 -r)"
        )
    claimed = sum(entry.file_size for entry in listed)
    if claimed > size:
        raise CheckpointError(
            f"would unpack to {claimed} bytes, but has only {size}: its parts overlap or its table "
            "of contents lies; expected one of torch.save. Nothing was unpacked; download it again"
        )
    for entry in listed:  # 0 is what torch writes where it is told to compute no checksum
        entry.CRC = entry.CRC or None  # type: ignore[assignment]
    if "data.pkl" not in entries:
        raise CheckpointError(
            f"is an archive of {len(entries)} files; expected one of torch.save, with a data.pkl. "
            "If a checkpoint lies in it, unpack that"
        )
    return entries


def read_legacy(file: IO[bytes]) -> object:
    """The object in a file as torch.save wrote it before 1.6: pickles, then the storages' bytes.

    Raises:
        CheckpointError: its pickle is refused, or it claims more data than it has.
    """
    left = os.fstat(file.fileno()).st_size
    if safe_pickle.load(file) != _MAGIC or safe_pickle.load(file) != _PROTOCOL:
        raise CheckpointError(
            "is a pickle; expected one of torch.save. Save the weights with "
            "torch.save(model.state_dict(), ...)"
        )
    machine = safe_pickle.load(file)
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise CheckpointError(_BIG_ENDIAN)
    promised: dict[str, Storage] = {}

    def storage(kind: Global, key: str, _: object, numel: int, view: Any = None) -> Storage:
        nonlocal left
        dtype = _dtype(kind)
        if key not in promised:
            left -= numel * dtype.itemsize
            if numel < 0 or left < 0:
                raise CheckpointError(
                    "claims more values than it has bytes; expected them all. Download it again"
                )
            promised[key] = Storage(_allocated(numel * dtype.itemsize), dtype)
        data = promised[key].data
        if view is not None:
            _, offset, length = view
            data = data[offset * dtype.itemsize : (offset + length) * dtype.itemsize]
        return Storage(data, dtype)

    content = safe_pickle.load(file, storage)
    keys: Any = safe_pickle.load(file)
    if not all(isinstance(key, str) for key in keys) or set(keys) != promised.keys():
        raise CheckpointError(
            "does not say where the values of all its tensors lie; expected them all. "
            "Download it again"
        )
    for key in keys:
        data, dtype = promised[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel * dtype.itemsize != data.nbytes():
            raise CheckpointError(
                f"holds {numel} values where it says {data.nbytes() // dtype.itemsize}; expected "
                "as many. Download it again"
            )
        _fill(data, file)
    return content


def _dtype(kind: Global) -> torch.dtype:
    """The type of 'torch.FloatStorage', or of 'torch.cuda.FloatStorage' in old files."""
    dtype = STORAGE_DTYPES.get(kind.name.rpartition(".")[2].lstrip("_"))
    if dtype is None:
        raise CheckpointError(
            f"holds tensors of {shown(kind.name)}; expected floats or integers. "
            "Save the weights before they are quantized"
        )
    return dtype


def _allocated(size: int) -> torch.UntypedStorage:
    return torch.empty(size, dtype=torch.uint8).untyped_storage()


def _fill(storage: torch.UntypedStorage, file: Any) -> None:
    target = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    if file.readinto(target.data) != target.size:
        raise EOFError("a tensor's data is cut short")
