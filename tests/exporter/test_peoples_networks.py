"""What people's networks do, and what a bundle of them must do all the same."""

import threading

import numpy as np
import pytest
import torch
from official_style import PastedSAM
from torch import nn
from torch.nn import functional as F

import sam_deploy
from sam_deploy.agreement import relative_rms
from sam_deploy.errors import CheckFailed, InputError

pytestmark = pytest.mark.export


class Net(nn.Module):
    """A linear layer with `forward` after it; what it needs stands on it."""

    def __init__(self, after, **parts):
        super().__init__()
        self.l = nn.Linear(16, 8)
        self.after = after
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.after(self, x)


def rows(count=8, *shape):
    return torch.randn(count, *(shape or (16,)), generator=torch.Generator().manual_seed(0))


def exported(module, x, tmp_path, precision="fp32", **options):
    torch.manual_seed(0)
    return sam_deploy.export(module, x, out=tmp_path / "a", precision=precision, **options)


def check(module, x, tmp_path, limit=1e-5, **options):
    """The bundle gives what the module itself gives, at several batch sizes."""
    kept = x.clone()
    engine = sam_deploy.load(exported(module, x, tmp_path, **options).bundle)
    torch.testing.assert_close(x, kept, rtol=0, atol=0, equal_nan=True)
    for size in (1, 2, 3, 5):
        given = torch.cat([x, x])[:size]
        with torch.no_grad():
            expected = module.eval()(given.clone())
        expected = expected if isinstance(expected, dict) else {"output": expected}
        found = engine(given.numpy().copy())
        found = found if isinstance(found, dict) else dict.fromkeys(expected, found)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            wanted = expected[name].detach().numpy()
            assert array.dtype == wanted.dtype
            assert relative_rms(array, wanted) < limit or np.allclose(array, wanted, rtol=1e-3)
    return engine


ROTARY = torch.polar(torch.ones(8), torch.linspace(0, 3, 8))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_complex_buffers_keep_their_imaginary_part(tmp_path, precision):
    def rotary(self, x):
        pairs = torch.view_as_complex(x.reshape(-1, 8, 2))
        return self.l(torch.view_as_real(pairs * self.turn).flatten(1))

    check(Net(rotary, turn=ROTARY), rows(), tmp_path, 3e-3, precision=precision)


def test_integers_that_forward_makes_floats(tmp_path):
    module = Net(lambda self, x: self.l(x.float() / 255))
    x = (rows().abs() * 80).to(torch.uint8)
    engine = check(module, x, tmp_path)
    assert engine.manifest.inputs[0].dtype == "uint8"


def test_positions_in_a_fixed_dtype(tmp_path):
    def positions(self, x):
        return self.l(x + torch.arange(16, dtype=torch.float32) / 16) + torch.ones(8)

    check(Net(positions), rows(), tmp_path)


def test_forward_may_work_in_place(tmp_path):
    check(Net(lambda self, x: self.l(x.sub_(0.5).div_(2))), rows(), tmp_path)


@pytest.mark.parametrize(
    "after",
    [
        lambda self, x: F.normalize(self.l(x).relu() * (x[:, :1] > 0), dim=1),
        lambda self, x: self.l(x) / (self.l(x).abs().sum(1, keepdim=True) + 1e-8),
    ],
)
def test_an_epsilon_is_not_rounded_away(tmp_path, after):
    module, x = Net(after), rows()
    with torch.no_grad():
        module.l.bias.zero_()
    done = exported(module, x, tmp_path, "fp16", allow_islands=1.0)
    assert any("FP16 begins at" in island.reason for island in done.manifest.precision.islands)
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(done.bundle / "model.onnx")
    zero = np.zeros((2, 16), np.float32)
    with np.errstate(all="ignore"):
        (found,) = ReferenceEvaluator(model).run(None, {"input": zero})
    assert np.isfinite(found).all()


@pytest.mark.parametrize("low", [-1e9, float("-inf")])
def test_a_mask_of_very_low_numbers_is_an_island(tmp_path, low):
    mask = torch.triu(torch.full((8, 8), low), 1)

    def attend(self, x):
        y = self.l(x)
        return (y[:, :, None] * y[:, None] + self.mask).softmax(-1)

    check(Net(attend, mask=mask), rows(), tmp_path, 5e-3, precision="fp16")


def test_outputs_that_are_numbers_constants_inputs_weights_or_empty(tmp_path):
    def everything(self, x):
        y = self.l(x)
        return {"y": y, "mean": y.abs().mean(), "zero": torch.zeros(3),
                "same": x, "weight": self.l.bias}  # fmt: skip

    for precision in ("fp32", "fp16"):
        module = Net(everything)
        done = exported(module, rows(), tmp_path, precision, force=True)
        found = sam_deploy.load(done.bundle)(rows(3).numpy())
        with torch.no_grad():
            expected = module(rows(3))
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor.detach(), atol=5e-3, err_msg=name)


def test_outputs_and_inputs_named_as_weights(tmp_path):
    module = Net(lambda self, x: {"scores": self.l(x) * self.scores}, scores=rows(8)[:, 0])
    check(module, rows(), tmp_path)
    done = exported(module, rows(), tmp_path, force=True, input_names=["l.bias"])
    assert done.manifest.inputs[0].name == "l.bias"


def test_types_that_numpy_lacks(tmp_path):
    def half(self, x):
        return {"y": self.l(x).to(torch.bfloat16).float()}

    check(Net(half), rows(), tmp_path, 1e-2)
    with pytest.raises(InputError, match=r"the output output is torch\.complex64"):
        exported(Net(lambda self, x: torch.fft.fft(self.l(x))), rows(), tmp_path, force=True)


def test_a_tensor_may_be_returned_twice(tmp_path):
    engine = check(Net(lambda self, x: {"a": (y := self.l(x)), "b": y}), rows(), tmp_path)
    assert [output.name for output in engine.manifest.outputs] == ["a", "b"]


def test_a_branch_on_the_batch_inside_a_library_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "site-packages" / "a_library"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "def after(self, x):\n    y = self.l(x)\n    return y + 1 if x.shape[0] > 2 else y\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    from a_library import after

    with pytest.raises(InputError, match="the batch size is compared"):
        exported(Net(after), rows(), tmp_path)


def test_forward_may_ask_for_the_class_of_its_layers(tmp_path):
    def by_class(self, x):
        assert type(self) is Net
        return self.l(x) if type(self.l) is nn.Linear else None

    check(Net(by_class), rows(), tmp_path)


@pytest.mark.parametrize(
    "module",
    [
        Net(lambda self, x: self.l(x), lock=threading.Lock()),
        nn.LazyLinear(3),
        nn.Linear(16, 3, device="meta"),
    ],
)
def test_what_cannot_be_copied_is_refused(tmp_path, module):
    with pytest.raises(InputError, match=r"cannot be copied|does not run"):
        exported(module, rows(), tmp_path)


def test_data_parallel_is_unwrapped(tmp_path):
    check(nn.DataParallel(Net(lambda self, x: self.l(x))), rows(), tmp_path)


def test_a_recurrent_network_with_sam(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.sam = PastedSAM(8)
            self.lstm = nn.LSTM(8, 6, batch_first=True)
            self.norm = nn.GroupNorm(2, 8)

        def forward(self, x):
            y = self.sam(x, 4, 6)
            y = self.norm(y.transpose(1, 2)).transpose(1, 2)
            return self.lstm(y)[0]

    check(Recurrent(), rows(4, 24, 8), tmp_path)


class Masked(nn.Module):
    """ONNX Runtime 1.32 crashes on this in FP16; another version may take it."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x, mask):
        return self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]


def test_a_graph_that_crashes_onnxruntime_does_not_crash_the_export(tmp_path):
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[:, 7:] = True
    try:
        done = exported(Masked(), (rows(4, 10, 16), mask), tmp_path, "fp16")
    except CheckFailed as failure:
        assert "ONNX Runtime crashes when it loads" in str(failure)  # noqa: PT017
        assert not (tmp_path / "a").exists()
    else:
        assert done.manifest.parity[0].passed
