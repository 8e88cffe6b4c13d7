"""Files of torch.save give the tensors that torch.load gives, those of old torch versions too."""

import pickle
import struct
import zipfile

import pytest
import torch

from sam_deploy.errors import CheckpointError
from sam_deploy.models.checkpoint import read_checkpoint
from sam_deploy.models.checkpoint_file import read_content
from sam_deploy.models.fit import load_model

VALUES = torch.arange(8.0)


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class OldPickler(pickle.Pickler):
    """Writes storages as torch before 0.4 did: a tensor's may be a view of another."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


def old_file(path, content, *, keys=("root",), numel=8, little=True):
    machine = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"long": 8}}
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, machine):
            pickle.dump(header, file, 2)
        OldPickler(file, 2).dump(content)
        pickle.dump(list(keys), file, 2)
        file.write(struct.pack("<q", numel) + VALUES.numpy().tobytes())
    return path


def tensor(view=None, kind=torch.FloatStorage, numel=8, size=(2, 2)):
    storage = ("storage", kind, "root", "cuda:0", numel, view)
    return Call(torch._utils._rebuild_tensor, storage, 0, size, (2, 1))


def test_a_view_of_a_storage_of_an_old_file(tmp_path):
    content = {"whole": tensor(), "view": tensor(view=("view", 3, 4))}
    path = old_file(tmp_path / "c.pth", content)
    expected = torch.load(path, map_location="cpu", weights_only=True)
    found = read_content(path)
    assert found.keys() == expected.keys() == content.keys()
    for name in content:
        assert torch.equal(found[name], expected[name])
    assert found["view"].tolist() == [[3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"w": tensor(view=("view", 6, 4))}, {}, "too little data"),
        ({"w": tensor(size=(9, 9))}, {}, "too little data"),
        ({"w": tensor()}, {"keys": []}, "where the values of all its tensors lie"),
        ({"w": tensor()}, {"keys": ["other"]}, "where the values of all its tensors lie"),
        ({"w": tensor()}, {"keys": [("a", "b")]}, "where the values of all its tensors lie"),
        ({"w": tensor()}, {"numel": 7}, "holds 7 values where it says 8"),
        ({"w": tensor(numel=-8)}, {}, "claims more values"),
        ({"w": tensor(numel=2**40)}, {}, "claims more values"),
        ({"w": tensor(numel=9)}, {"numel": 9}, "cut short"),
        ({"w": tensor(kind=torch.QUInt8Storage)}, {}, "tensors of torch.QUInt8Storage; expected"),
        ({"w": tensor()}, {"little": False}, "big-endian"),
    ],
)
def test_an_old_file_that_contradicts_itself(tmp_path, content, options, said):
    path = old_file(tmp_path / "c.pth", content, **options)
    with pytest.raises(CheckpointError, match=said):
        read_content(path)


def test_a_big_endian_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("c/data.pkl", pickle.dumps({}))
        archive.writestr("c/byteorder", "big")
    with pytest.raises(CheckpointError, match="big-endian"):
        read_content(tmp_path / "c.pth")


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("photos/1.jpg", "x")
    with pytest.raises(
        CheckpointError, match=r"an archive of 1 files; expected one of torch\.save"
    ):
        read_content(tmp_path / "c.pth")


def test_a_plain_pickle(tmp_path):
    (tmp_path / "c.pth").write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(CheckpointError, match=r"is a pickle; expected one of torch\.save"):
        read_content(tmp_path / "c.pth")


@pytest.mark.parametrize(
    "dtype",
    [torch.float8_e4m3fn, torch.bfloat16, torch.uint16, torch.bool, torch.complex64, torch.int8],
)
def test_every_type_is_the_one_saved(tmp_path, dtype):
    torch.save({"w": torch.ones(3).to(dtype)}, tmp_path / "c.pth")
    assert read_content(tmp_path / "c.pth")["w"].dtype == dtype


def test_what_torch_cannot_compute_with(tmp_path):
    torch.save({"w": torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"holds w as torch\.bits8.*as float32"):
        read_checkpoint(tmp_path / "c.pth")


def test_tensors_share_their_storage_as_they_did(tmp_path):
    base = torch.zeros(4)
    torch.save({"a": base, "b": base[1:]}, tmp_path / "c.pth")
    found = read_content(tmp_path / "c.pth")
    found["a"][1] = 7
    assert found["b"][0] == 7


def test_more_dimensions_than_torch_computes_with(tmp_path):
    header = b'{"w":{"dtype":"F16","shape":[' + b"1," * 99 + b'1],"data_offsets":[0,2]}}'
    path = tmp_path / "c.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    assert read_checkpoint(path)["w"].ndim == 100
    with pytest.raises(CheckpointError, match="no known model"):
        load_model(path)
