"""Checkpoints made to harm whoever reads them; each is a function that writes one to a path."""

from __future__ import annotations

import pickle
import struct
import zipfile

import torch


def archive(path, pickled, storages=None, compression=zipfile.ZIP_STORED):
    """A zip like torch.save's, around any pickle and any storages."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("c/data.pkl", pickled)
        file.writestr("c/version", "3\n")
        for key, data in (storages or {}).items():
            file.writestr(f"c/data/{key}", data)


def saved(content):
    """A function that writes `content` with torch.save."""
    return lambda path: torch.save(content, path)


def itself():
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    return content


def compressed(path):
    archive(path, b"", {"0": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)


def lying(at, value):
    """A function that changes what the table of contents says of a storage."""

    def write(path):
        torch.save({"w": torch.ones(4)}, path)
        raw = bytearray(path.read_bytes())
        entry = raw.rindex(path.stem.encode() + b"/data/0") - 46
        raw[entry + at : entry + at + 4] = struct.pack("<I", value)
        path.write_bytes(raw)

    return write


def overlapping(path):
    """A thousand names for the same mebibyte."""
    archive(path, pickle.dumps({}, 2), {"0": bytes(1 << 20)})
    raw = path.read_bytes()
    end = raw.rindex(b"PK\x05\x06")
    start = raw.rindex(b"PK\x01\x02")
    entries = raw[start:end] * 1000
    count, size, offset = struct.unpack("<xxxxxxxxxxHII", raw[end : end + 20])
    tail = struct.pack(
        "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count + 999, count + 999,
        size + len(entries) - (end - start), offset, 0,
    )  # fmt: skip
    path.write_bytes(raw[:start] + entries + tail)


def repeated(path):
    """One stored value as 2^40 of them, as torch.save itself writes it."""
    torch.save({"w": torch.zeros(1).expand(2**20, 2**20)}, path)


def shared(path):
    """A mebibyte in half precision under 5000 names: 10 GB in single precision."""
    half = torch.zeros(2**19, dtype=torch.float16)
    torch.save({f"w{i}": half for i in range(5000)}, path)


def legacy_promise(path):
    """The old format, that promises a tensor of 2^40 values and ends."""
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    four, many = b"cpuq\x06K\x04", b"cpuq\x06\x8a\x06" + (2**40).to_bytes(6, "little")
    assert four in raw
    path.write_bytes(raw.replace(four, many))


def pickled(body):
    """A function that writes an archive around the pickle `body`."""
    return lambda path: archive(path, b"\x80\x05" + body + b".")


NESTED_KEY = b"})" + b"2\x86" * 200 + b"Ns"  # each level a pair of the last: 2^200 steps to hash
ONE_HASH = b"}(" + b"".join(
    b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(1, 60_000)
) + b"u"  # fmt: skip
DEEP = b"}X\x05\x00\x00\x00model" * 5000 + b"N" + b"s" * 5000
LONG_NAME = {"model." * 20_000 + "w": torch.zeros(1)}
FRAMES = {
    "LONG4": b"\x8b\xff\xff\xff\x7f",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**62),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62),
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**36),
    "FRAME": b"\x95" + struct.pack("<Q", 2**62),
    "BINSTRING": b"T\xff\xff\xff\x7f",
    "many opcodes": b"]" * (17 << 20),
}


def safetensors_header(length, size=None):
    """A function that writes a safetensors file whose header claims `length` bytes."""

    def write(path):
        with path.open("wb") as file:
            file.write(struct.pack("<Q", length) + b'{"w"')
            file.truncate(size)

    return write


HOSTILE = {
    "compressed": (compressed, "compressed archive"),
    "another size": (lying(24, 2**32 - 2), "would unpack to 4294967"),
    "a smaller size": (lying(24, 8), "damaged or cut short"),
    "another offset": (lying(42, 2**31), "damaged or cut short"),
    "the pickle's offset": (lying(42, 0), "damaged or cut short"),
    "another checksum": (lying(16, 1), "damaged or cut short"),
    "overlapping": (overlapping, "would unpack to 1048576.* its parts overlap"),
    "repeated": (repeated, "expands to 1099511627776 values"),
    "shared": (shared, "expands to 2621440000 values"),
    "old format": (legacy_promise, "claims more values than it has bytes"),
    "itself": (saved(itself()), "holds no weights: its 2 keys are epoch, model"),
    "5000 models deep": (pickled(DEEP), "holds no weights: its 1 keys are model"),
    "hash of a key": (pickled(NESTED_KEY), "holds no weights: its 1 keys are a tuple"),
    "one hash": (pickled(ONE_HASH), "holds no weights: its 59999 keys are"),
    "long name": (saved(LONG_NAME), "no known model"),
    **{f"claims, {name}": (pickled(body), "more than 16 MiB") for name, body in FRAMES.items()},
    "header 2^60": (safetensors_header(2**60), "damaged safetensors file"),
    "header 200 MB": (safetensors_header(200 << 20), "damaged safetensors file"),
    "header of 200 MB": (safetensors_header(200 << 20, 201 << 20), "damaged safetensors file"),
}
