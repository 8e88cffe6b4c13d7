"""The hash knows the weights and nothing else."""

import hashlib
import random
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_deploy.models.checkpoint import read_checkpoint
from sam_deploy.models.weights_hash import weights_sha256

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.int64, torch.uint8, torch.bool])
NAMES = st.text("abn.", min_size=1, max_size=6)


@st.composite
def states(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return {
        name: torch.randint(0, 99, draw(SHAPES), generator=generator).to(draw(DTYPES))
        for name in names
    }


@settings(max_examples=60, deadline=None)
@given(states(), st.randoms(use_true_random=False))
def test_saving_again_in_any_order_format_or_layout_keeps_the_hash(state, rng: random.Random):
    expected = weights_sha256(state)
    names = rng.sample(list(state), len(state))
    shuffled = {name: state[name] for name in names}
    assert weights_sha256(shuffled) == expected
    strided = {
        name: tensor.unsqueeze(-1).repeat(*[1] * tensor.ndim, 2)[..., 0]
        for name, tensor in shuffled.items()
    }
    assert weights_sha256(strided) == expected
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.pth"
        for zipped in (True, False):
            torch.save({"model": strided}, path, _use_new_zipfile_serialization=zipped)
            assert weights_sha256(read_checkpoint(path)) == expected
        safetensors.torch.save_file(shuffled, path)
        assert weights_sha256(read_checkpoint(path)) == expected


def test_the_definition():
    state = {"b": torch.tensor([1.0, -2.0]), "a.num_batches_tracked": torch.tensor(3)}
    values = bytes.fromhex("0000803f000000c0")
    assert weights_sha256(state) == hashlib.sha256(b'["b", "float32", [2]]\n' + values).hexdigest()


BASE = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])}


@pytest.mark.parametrize(
    "other",
    [
        BASE | {"a": torch.tensor([[1.0, 2.0000002]])},
        BASE | {"a": torch.tensor([[1.0], [2.0]])},
        BASE | {"b": torch.tensor([3.0]).view(torch.int32)},
        {"a": BASE["b"], "b": BASE["a"]},
        {"a": BASE["a"], "c": BASE["b"]},
        BASE | {"c": torch.empty(0)},
        {"a": BASE["a"]},
    ],
    ids=["value", "shape", "dtype", "swapped", "name", "more", "fewer"],
)
def test_any_change_changes_the_hash(other):
    assert weights_sha256(other) != weights_sha256(BASE)


def test_batch_counters_do_not_count():
    counter = "bn.num_batches_tracked"
    assert weights_sha256(BASE | {counter: torch.tensor(1)}) == weights_sha256(BASE)
    assert weights_sha256(BASE | {counter + "x": torch.tensor(1)}) != weights_sha256(BASE)
