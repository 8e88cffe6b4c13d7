"""A checkpoint goes into any module whose names and shapes are its own, and into no other."""

import re

import pytest
import safetensors.torch
import torch
from torch import nn

from sam_deploy.errors import CheckpointError, InputError
from sam_deploy.models.own_weights import load_weights


class Net(nn.Module):
    """Children with the names that wrappers use."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.model = nn.Linear(4, 2)
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
        self.register_buffer("grid", torch.rand(3), persistent=False)

    def forward(self, x):
        return self.model(self.backbone(x).mean((2, 3))) @ self.mask.isfinite().float()


class OnlyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 2)


class Stateful(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        raise AssertionError("nothing of a file comes here")


def net(make=Net):
    torch.manual_seed(1)
    module = make().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point() and tensor.isfinite().all():
            tensor.uniform_(0.5, 1.5)
    return module


def assert_loaded(path, saved, make=Net, **options):
    torch.manual_seed(2)
    module = make().eval()
    load_weights(module, path, **options)
    for name, tensor in saved.state_dict().items():
        if not name.endswith(("num_batches_tracked", "extra_state")):
            assert torch.equal(module.state_dict()[name], tensor), name
    return module


def saved_to(path, content):
    torch.save(content, path)
    return path


def under(prefix, module):
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("make", [Net, OnlyModel])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.model."]
)
def test_names_match_as_they_are_or_without_a_wrapper(tmp_path, prefix, make):
    module = net(make)
    assert_loaded(saved_to(tmp_path / "c.pth", under(prefix, module)), module, make)


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 1}])
def test_any_file_that_read_checkpoint_takes(tmp_path, wrap):
    module = net()
    path = saved_to(tmp_path / "c.pth", wrap(module.state_dict()))
    loaded = assert_loaded(path, module)
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded(image), module(image))
    safetensors.torch.save_file(module.state_dict(), tmp_path / "c.safetensors")
    assert_loaded(tmp_path / "c.safetensors", module)


def test_the_averaged_copy(tmp_path):
    module = net()
    other = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    path = saved_to(tmp_path / "c.pth", {"model": other, "ema": {"module": module.state_dict()}})
    assert_loaded(path, module, ema=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_floats_take_the_module_s_type(tmp_path, dtype):
    module = net()
    expected = {
        name: t.to(dtype) if t.is_floating_point() else t for name, t in under("", module).items()
    }
    loaded = Net()
    load_weights(loaded, saved_to(tmp_path / "c.pth", expected))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.model.weight, expected["model.weight"].float())


def test_batch_counters_may_be_missing_and_extra_state_stays(tmp_path):
    module = net()
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("tracked")}
    assert_loaded(saved_to(tmp_path / "c.pth", state), module)
    linear = nn.Linear(2, 2)
    assert_loaded(saved_to(tmp_path / "l.pth", linear.state_dict()), linear, lambda: Stateful(2, 2))


def test_parameters_stay_the_same_objects(tmp_path):
    """An optimizer, or a weight that two children share, still sees them."""
    saved, module = nn.Linear(2, 2), nn.Linear(2, 2)
    before = module.weight
    load_weights(module, saved_to(tmp_path / "c.pth", saved.state_dict()))
    assert module.weight is before
    assert before.requires_grad


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("model.bias"), r"Net, which has 10 tensors: 1 missing \(model\.bias\)\."),
        (lambda s: s.update(x=torch.ones(1)), r"1 unexpected \(x\)"),
        (
            lambda s: s.update({"model.bias": torch.ones(7)}),
            r"1 of another shape \(model\.bias is \(7,\) instead of \(2,\)\)",
        ),
        (
            lambda s: s.update({"model.bias": torch.ones(2, dtype=torch.int64)}),
            r"model\.bias is \(2,\) int64 instead of \(2,\)",
        ),
        (lambda s: s.update(grid=torch.ones(3)), r"1 unexpected \(grid\)"),
        (
            lambda s: [s.pop(name) for name in list(s)[1:]],
            r"missing \((\S+, ){5}\.\.\.\)\. Make the module",
        ),
        (
            lambda s: s.update({"model.bias": torch.tensor([1, float("nan")])}),
            r"NaN or infinity in 1 of .* model\.bias",
        ),
        (
            lambda s: s.update({"model.bias": torch.tensor([1, 1e300], dtype=torch.float64)}),
            r"NaN or infinity in 1 of .* model\.bias",
        ),
    ],
    ids=["missing", "more", "shape", "integers", "not persistent", "many", "NaN", "too large"],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path, change, said):
    state = dict(net().state_dict())
    change(state)
    module = Net()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=said) as caught:
        load_weights(module, saved_to(tmp_path / "c.pth", state))
    assert re.match(r".*c\.pth ", str(caught.value))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(2), lambda: nn.Linear(2, 2, device="meta")])
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_module_without_memory(tmp_path, make):
    path = saved_to(tmp_path / "c.pth", nn.Linear(2, 2).state_dict())
    with pytest.raises(InputError, match="one with memory for its weights"):
        load_weights(make(), path)


def test_nothing_in_the_file_is_run(tmp_path):
    path = saved_to(tmp_path / "c.pth", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="whole pickled module"):
        load_weights(nn.Linear(2, 2), path)
