"""Reading a pickle runs nothing that the pickle says, and keeps the tensors in it."""

import argparse
import collections
import contextlib
import datetime
import decimal
import functools
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.errors import CheckpointError
from sam_deploy.models import safe_pickle
from sam_deploy.models.checkpoint_file import read_content
from sam_deploy.models.pickled_values import Placeholder

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 4])


class Calls:
    """Pickles as the call of `function` with `args`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def through_file(content, zipped=True, protocol=2):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pth"
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        return read_content(path)


def read(*parts):
    return safe_pickle.load(io.BytesIO(b"".join(parts) + pickle.STOP))


@pytest.fixture
def config(monkeypatch):
    """A yacs config, as the official training script pickles it."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, items):
            super().__init__(items)
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode({"MODEL": CfgNode({"NAME": "smt_t"}), "BASE": [""]})


@FORMATS
@PROTOCOLS
def test_a_call_is_refused_by_name_and_not_run(tmp_path, zipped, protocol):
    trap = tmp_path / "ran"
    evil = {"model": {"w": torch.ones(2)}, "config": Calls(os.system, f"touch {trap}")}
    with pytest.raises(CheckpointError, match=r"calls posix\.system"):
        through_file(evil, zipped, protocol)
    assert not trap.exists()

    pickle.loads(pickle.dumps(evil["config"]))  # the trap does spring in an ordinary unpickler
    assert trap.exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(eval, "1"), "builtins.eval"),
        (Calls(getattr, "x", "upper"), "builtins.getattr"),
        (Calls(__import__, "os"), "builtins.__import__"),
        (Calls(subprocess.getoutput, "true"), "subprocess.getoutput"),
        (Calls(functools.partial, print), "functools.partial"),
        (Calls(torch.load, "x.pth"), "torch.serialization.load"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_called_is_named_as_python_3_names_it(call, name):
    with pytest.raises(CheckpointError, match=f"calls {name},"):
        through_file(call)


SYSTEM = b"cposix\nsystem\n"
OPCODES = {
    "REDUCE": SYSTEM + b"(S'true'\ntR",
    "INST": b"(S'true'\niposix\nsystem\n",
    "OBJ": b"(" + SYSTEM + b"S'true'\no",
    "dotted": b"\x80\x04\x8c\x02os\x8c\x09path.join\x93)R",
    "getattr chain": b"c__builtin__\ngetattr\n" + SYSTEM + b"S'x'\n\x86R",
    "EXT": b"\x82\x01",
    "BUILD on a global": SYSTEM + b"}S'a'\nI1\nsb",
    "BUILD on a class": b"ccollections\nOrderedDict\n}S'a'\nI1\nsb",
    "BUILD on a rebuilder": b"ctorch._utils\n_rebuild_tensor_v2\n}S'a'\nI1\nsb",
    "BUILD on a dtype": b"ctorch\nfloat32\n}S'a'\nI1\nsb",
    "call of a dtype": b"ctorch\nfloat32\n)R",
    "call of a placeholder": b"cany\nThing\n)\x81)R",
    "NEWOBJ of a string": b"S'x'\n)\x81",
    "persistent object": b"(S'object'\ncany\nThing\nS'a'\nS'b'\ntQ",
    "storage that is none": b"(S'storage'\nS'x'\nS'0'\nS'cpu'\nI1\ntQ",
    "call with no tuple": b"ccollections\nOrderedDict\n]R",
    "persistent, protocol 0": b"Pstorage\n",
    "rebuild by a call": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + SYSTEM + b"cany\nThing\n(S'true'\ntNtR"
    ),
}


@pytest.mark.parametrize("body", OPCODES.values(), ids=OPCODES)
def test_every_opcode_that_acts_is_refused(body):
    with pytest.raises(CheckpointError, match="nothing was run"):
        read(body)


def test_naming_a_module_does_not_import_it(tmp_path, monkeypatch):
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = read(b"\x80\x04\x8c\x0btrap_module\x8c\x05A.b.c\x93")
    assert found.name == "trap_module.A.b.c"
    assert "trap_module" not in sys.modules
    with pytest.raises(TypeError):
        found()


@FORMATS
@PROTOCOLS
def test_foreign_objects_are_inert_and_weights_come_through(config, zipped, protocol):
    content = {
        "model": collections.OrderedDict(w=torch.arange(6.0).reshape(2, 3)),
        "config": config,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("/tmp/x")),
        "max_accuracy": np.float64(82.2),
        "history": np.arange(3),
        "when": [datetime.datetime(2024, 1, 1), datetime.timedelta(1), decimal.Decimal("1.5")],
        "counts": collections.Counter("aab"),
        "groups": collections.defaultdict(list, a=[1]),
        "queue": collections.deque([1, 2]),
        "keys": {pathlib.PurePosixPath("a"): 1},
        "kinds": {frozenset({1}), 2},
        "blob": b"\xff\x00",
        "types": [config.__class__, np.float32, torch.bfloat16, torch.Size([1]), os.system],
        "device": torch.device("cuda:0"),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]},
    }
    loaded = through_file(content, zipped, protocol)
    assert list(loaded) == list(content)
    assert torch.equal(loaded["model"]["w"], content["model"]["w"])
    assert type(loaded["config"]) is Placeholder
    assert loaded["config"].name == "yacs.config.CfgNode"
    assert loaded["config"]["BASE"] == [""]
    assert loaded["args"].name == "argparse.Namespace"
    assert loaded["max_accuracy"].name.endswith("multiarray.scalar")
    assert loaded["kinds"].name == "builtins.set"
    assert loaded["types"][2:4] == [torch.bfloat16, torch.Size([1])]
    assert loaded["device"] == torch.device("cuda:0")
    assert loaded["optimizer"]["param_groups"] == [{"lr": 1e-3}]


@FORMATS
def test_tensors_are_those_that_torch_itself_loads(zipped):
    base = torch.randn(4, 6)
    annotated = torch.nn.Parameter(torch.ones(2))
    annotated.note = "x"
    content = {
        "transposed": base.t(),
        "view": base[1:, ::2],
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "parameter with attributes": annotated,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3),
        **{
            str(dtype): torch.arange(5).to(dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)
        },
        **({"float8": torch.ones(3).to(torch.float8_e4m3fn)} if zipped else {}),
    }
    loaded = through_file(content, zipped)
    for name, tensor in content.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name].double(), tensor.double()), name
    assert loaded["view"].data_ptr() > loaded["transposed"].data_ptr()  # one storage, as saved


def test_a_tensor_larger_than_its_data_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates naming a storage
        storage = torch.ones(2).storage()
        lie = Calls(torch._utils._rebuild_tensor_v2, storage, 0, (9,), (1,), False, {})
        with pytest.raises(CheckpointError, match=r"tensor of shape \(9,\) with too little data"):
            through_file(lie)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damage_makes_a_pickle_act(data):
    body = pickle.dumps({"a": Calls(os.abort), "b": [argparse.Namespace(x=1)]}, protocol=2)
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.binary(max_size=3)) + body[at + 1 :]
    with contextlib.suppress(Exception):  # anything may be raised, but aborting ends this process
        safe_pickle.load(io.BytesIO(damaged))
