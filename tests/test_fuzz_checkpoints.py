"""No bytes given as a checkpoint raise anything but an error meant for the user."""

import io
import itertools
import json
import pickle
import pickletools
import struct
import zipfile

import pytest
import safetensors.torch
import torch
from hostile_files import archive
from hypothesis import given
from hypothesis import strategies as st
from mutations import ended, fuzz, mutated, restructured

from sam_deploy.cli.export import main
from sam_deploy.errors import SamDeployError
from sam_deploy.models import SAM
from sam_deploy.models.checkpoint import read_checkpoint
from sam_deploy.models.fit import load_model
from sam_deploy.models.own_weights import load_weights

STATE = SAM(4, 2, qkv_bias=True, expand_ratio=1).state_dict()

pytestmark = pytest.mark.long


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


CONTENT = {"model": STATE, "epoch": 3, "model_ema": {"module": dict(STATE)}, "lr": [1e-3, None]}
ZIPS = [saved(STATE), saved(CONTENT), saved(CONTENT, pickle_protocol=4)]
LEGACY = [
    saved(content, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    for content in (STATE, CONTENT)
    for protocol in (2, 4)
]
SAFE = safetensors.torch.save(STATE)
HEADER_BYTES = struct.unpack("<Q", SAFE[:8])[0]
HEADER, DATA = json.loads(SAFE[8 : 8 + HEADER_BYTES]), SAFE[8 + HEADER_BYTES :]


def parts(raw):
    """The pickle in an archive, and its storages."""
    with zipfile.ZipFile(io.BytesIO(raw)) as file:
        names = {name.partition("/")[2]: name for name in file.namelist()}
        pickled = file.read(names["data.pkl"])
        storages = {n[5:]: file.read(full) for n, full in names.items() if n.startswith("data/")}
    return pickled, storages


PICKLES = [parts(raw)[0] for raw in ZIPS]
STORAGES = parts(ZIPS[0])[1]


def refused(call, *args, **options):
    """The message if `call` refuses its input; anything else that it raises is raised."""
    try:
        call(*args, **options)
    except SamDeployError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "c.pth"

    def read(content):
        """Write `content`, and read it in every way; it is taken or refused."""
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
        own = SAM(4, 2, qkv_bias=True, expand_ratio=1)
        messages = [
            *(refused(read_checkpoint, path, ema=ema) for ema in (False, True)),
            refused(load_model, path),
            refused(load_weights, own, path),
        ]
        assert all(said == "" or said.startswith(str(path)) for said in messages)
        assert max(map(len, messages)) < 2500
        assert all(tensor.isfinite().all() for tensor in own.state_dict().values())
        return path

    return read


@fuzz(300)
@given(mutated([*ZIPS, *LEGACY, SAFE]))
def test_files_with_any_bytes_changed(check, content):
    check(content)


@fuzz(400)
@given(mutated(PICKLES))
def test_archives_around_a_changed_pickle(check, pickled):
    check(lambda path: archive(path, pickled, STORAGES))


@fuzz(400)
@given(mutated(LEGACY))
def test_old_files_with_any_bytes_changed(check, content):
    check(content)


@fuzz(300)
@given(restructured(HEADER))
def test_safetensors_with_any_header(check, header):
    raw = json.dumps(header).encode()
    check(struct.pack("<Q", len(raw)) + raw + DATA)


SINGLE = [
    value
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
]
WORDS = [
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"),
    *(b"ctorch\nFloatStorage\n", b"ctorch\nfloat16\n", b"cany.thing\nAt\n", b"K\x01", b"K\x04"),
    *(b"X\x07\0\0\0storage", b"X\x01\0\0\x000", b"X\x05\0\0\0model", b"J\xff\xff\xff\xff"),
    *(b"h\0", b"q\0", b"q\1", b"h\1", b"}", b"]", b")", b"(", b"\x85", b"\x86", b"\x87"),
    *(b"R", b"Q", b"s", b"u"),
]


def chunks(pickled):
    """The opcodes of a pickle with their arguments."""
    starts = [place for _, _, place in pickletools.genops(pickled)]
    return [pickled[a:b] for a, b in itertools.pairwise([*starts, len(pickled)])]


SMALL = chunks(parts(saved({"model": {"proj.weight": torch.ones(2, 2)}}))[0])


@st.composite
def programs(draw):
    """A small checkpoint's pickle with some of its opcodes replaced, added, dropped or moved."""
    body = list(SMALL)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(1, max(1, len(body) - 1)))
        until = at + draw(st.integers(0, 2))
        body[at:until] = draw(st.lists(st.sampled_from([*SMALL, *SINGLE, *WORDS]), max_size=3))
    return b"".join(body) + pickle.STOP


@fuzz(200)
@given(programs())
def test_archives_around_another_program(check, pickled):
    check(lambda path: archive(path, pickled, STORAGES))


@fuzz(60)
@given(mutated([*LEGACY, SAFE]))
def test_through_the_command(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.pth"
    path.write_bytes(content)
    ended(main, "--weights", path, "--dry-run", "--out", tmp_path_factory.getbasetemp() / "none")


def test_what_is_changed_can_be_read(check):
    for content in (*ZIPS, *LEGACY, SAFE, lambda path: archive(path, PICKLES[0], STORAGES)):
        model, _ = load_model(check(content))
        assert torch.equal(model.proj.weight, STATE["proj.weight"])
