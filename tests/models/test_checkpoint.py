"""Every kind of checkpoint that occurs gives the same plain weights; anything else says why."""

import collections
import os
import pickle
import re
from argparse import Namespace

import pytest
import safetensors.torch
import torch

from sam_deploy.errors import CheckpointError
from sam_deploy.models.checkpoint import read_checkpoint

WEIGHTS = {
    "norm1.weight": torch.arange(4.0),
    "head.weight": torch.arange(6.0).reshape(2, 3),
    "bn.num_batches_tracked": torch.tensor(7),
}
AVERAGED = {name: tensor + 100 for name, tensor in WEIGHTS.items()}


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + name: tensor for name, tensor in weights.items()}


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def assert_is(state, weights):
    assert set(state) == set(weights)
    for name, tensor in weights.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        collections.OrderedDict(WEIGHTS),
        {"model": WEIGHTS},
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
        {"model": WEIGHTS, "model_ema": AVERAGED, "ema": AVERAGED, "state_dict_ema": AVERAGED},
        {"state_dict_ema": AVERAGED, "state_dict": WEIGHTS},
        {"model": WEIGHTS, "epoch": 3, "config": Namespace(lr=1), "optimizer": {"state": {}}},
        {"model": prefixed("module.")},
        prefixed("backbone."),
        prefixed("module.backbone."),
        prefixed("model."),
        prefixed("module._orig_mod.model.backbone."),
        {"state_dict": {**prefixed("backbone."), "neck.conv.weight": torch.ones(1)}},
    ],
    ids=lambda content: "+".join(list(content)[:4]),
)
def test_the_weights_are_found_wherever_they_lie(tmp_path, content, zipped):
    path = saved(tmp_path / "c.pth", content, _use_new_zipfile_serialization=zipped)
    assert_is(read_checkpoint(path), WEIGHTS)


@pytest.mark.parametrize("key", ["model_ema", "ema", "state_dict_ema"])
@pytest.mark.parametrize(
    "wrap", [dict, lambda w: {"module": prefixed("module.", w)}, lambda w: {"state_dict": w}]
)
def test_the_averaged_copy_is_taken_when_asked_for(tmp_path, key, wrap):
    path = saved(tmp_path / "c.pth", {"model": WEIGHTS, key: wrap(AVERAGED)})
    assert_is(read_checkpoint(path, ema=True), AVERAGED)
    assert_is(read_checkpoint(path), WEIGHTS)


def test_asking_for_an_averaged_copy_that_is_not_there(tmp_path):
    path = saved(tmp_path / "c.pth", {"model": WEIGHTS, "epoch": 3})
    with pytest.raises(CheckpointError, match=r"its 2 keys are model, epoch; .*model_ema.*--ema"):
        read_checkpoint(path, ema=True)


def test_a_lone_averaged_copy_is_not_taken_unasked(tmp_path):
    path = saved(tmp_path / "c.pth", {"model_ema": AVERAGED})
    with pytest.raises(CheckpointError, match="Use --ema to take the averaged copy"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["c.safetensors", "c.pth"])
def test_safetensors_are_known_by_content(tmp_path, name):
    safetensors.torch.save_file(prefixed("module."), tmp_path / name)
    assert_is(read_checkpoint(tmp_path / name), WEIGHTS)


def test_a_pickle_named_safetensors_is_still_read_safely(tmp_path):
    assert_is(read_checkpoint(saved(tmp_path / "c.safetensors", WEIGHTS)), WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_become_float32_and_integers_stay(tmp_path, dtype):
    state = read_checkpoint(
        saved(
            tmp_path / "c.pth",
            {"w": torch.arange(4).to(dtype).reshape(2, 2).t(), "n": torch.tensor(1)},
        )
    )
    assert state["w"].dtype == torch.float32
    assert state["w"].is_contiguous()
    assert state["w"].tolist() == [[0, 2], [1, 3]]
    assert state["n"].dtype == torch.int64


def test_a_classifier_s_head_beside_its_backbone_is_kept(tmp_path):
    content = {"backbone.norm1.weight": torch.ones(2), "head.weight": torch.ones(1, 2)}
    state = read_checkpoint(saved(tmp_path / "c.pth", content))
    assert set(state) == {"norm1.weight", "head.weight"}


class Evil:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("raw", [False, True], ids=["torch.save", "pickle.dump"])
def test_a_malicious_file_is_refused_by_name_and_has_not_run(tmp_path, raw):
    path, trap = tmp_path / "c.pth", tmp_path / "ran"
    content = {"epoch": 3, "config": Evil(f"touch {trap}")}
    if raw:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(
        CheckpointError, match=rf"^{re.escape(str(path))} calls posix\.system"
    ) as caught:
        read_checkpoint(path)
    assert not trap.exists()
    assert caught.value.__suppress_context__


BAD = {
    "missing": (lambda p: None, "does not exist.*Check the path"),
    "directory": (lambda p: p.mkdir(), "is a directory.*Name a file"),
    "empty": (lambda p: p.touch(), "is empty"),
    "random": (lambda p: p.write_bytes(b"\x13\x37" * 99), r"begins with b'\\x137"),
    "git-lfs": (lambda p: p.write_bytes(b"version https://git-lfs\n"), "git-lfs"),
    "pickle magic": (lambda p: p.write_bytes(b"\x80\x02" + b"\xff" * 99), "damaged or cut short"),
    "zip magic": (lambda p: p.write_bytes(b"PK\x03\x04" + b"\xff" * 99), "damaged or cut short"),
    "safetensors header": (lambda p: p.write_bytes(b"\xff" * 8 + b"{}"), "damaged safetensors"),
    "a list": (lambda p: torch.save([1], p), "holds no weights: it is a list"),
    "no weights": (
        lambda p: torch.save(dict.fromkeys("abcdefg"), p),
        r"its 7 keys are a, b, c, d, e, \.\.\.;",
    ),
    "an object": (lambda p: torch.save(Namespace(), p), "it is a pickled argparse.Namespace"),
    "a module": (
        lambda p: torch.save(torch.nn.Linear(2, 2), p),
        r"whole pickled module \(torch.nn.*Linear\).*nothing of it was.*model\.state_dict\(\)",
    ),
    "not finite": (
        lambda p: torch.save({c: torch.tensor([1, float("nan")]) for c in "abcdefg"}, p),
        r"NaN or infinity in 7 of 7 tensors: a, b, c, d, e, \.\.\.;",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_says_what_it_is_and_what_to_do(tmp_path, make, message):
    path = tmp_path / "c.pth"
    make(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "expected" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_archive_is_not_loaded(tmp_path):
    path = tmp_path / "c.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, kind, part):
    path = tmp_path / "c.pth"
    if kind == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    else:
        saved(path, {"model": WEIGHTS}, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(CheckpointError, match="expected"):
        read_checkpoint(path)
