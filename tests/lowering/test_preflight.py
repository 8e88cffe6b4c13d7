"""What trips an exporter is told before it does, with the file and line of the user's own code."""

import inspect
from pathlib import Path

import pytest
import torch
from official_style import UNet
from torch import nn

from sam_deploy.errors import InputError
from sam_deploy.lowering import check_traps, onnx_from_module
from sam_deploy.lowering.preflight import find_traps

BRANCH, READ, COUNT = "depends on a tensor's value", "read into Python", "how many elements"
BATCH, STORED = "the batch size is", "forward stores a tensor in"


class Trapped(nn.Module):
    """A convolution, and one of the things that people do."""

    def __init__(self, trap):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("scale", torch.ones(()))
        self.seen = []
        self.trap = trap

    def forward(self, x):
        return self.trap(self, self.conv(x))


def branch(self, y):
    if y.sum() > 0:  # here
        y = y + 1
    return y


def branch_on_item(self, y):
    return y + 1 if y.sum().item() > 0 else y  # here


def loop(self, y):
    for _ in range(int(y.abs().sum()) % 3):  # here
        y = y + 1
    return y


def item(self, y):
    return y * y.max().item()  # here


def numpy(self, y):
    return y * float(y.mean().numpy())  # here


def tolist(self, y):
    return y * y.mean().tolist()  # here


def mask(self, y):
    return y + y[y > 0].sum()  # here


def nonzero(self, y):
    return y + y.nonzero().sum()  # here


def attribute(self, y):
    self.kept = y  # here
    return y


def nested_attribute(self, y):
    self.kept = {"maps": [y]}  # here
    return y


def buffer(self, y):
    self.scale = self.scale * 2  # here
    return y * self.scale


def batch_compared(self, y):
    if y.shape[0] > 2:  # here
        y = y + 1
    return y


def batch_as_int(self, y):
    return y.view(int(y.shape[0]), -1)  # here


def batch_in_a_loop(self, y):
    return torch.stack([y[i] for i in range(len(y))])  # here


def batch_unpacked(self, y):
    return torch.stack(list(y))  # here


NOTES = {
    item: READ, numpy: READ, tolist: READ, mask: COUNT, nonzero: COUNT,
    attribute: STORED, nested_attribute: STORED, buffer: STORED,
}  # fmt: skip
FATAL = {
    branch: BRANCH, branch_on_item: BRANCH,
    batch_compared: BATCH, batch_as_int: BATCH, batch_in_a_loop: BATCH, batch_unpacked: BATCH,
}  # fmt: skip


def line_of(trap):
    """Where the comment "here" stands."""
    lines, first = inspect.getsourcelines(trap)
    offset = next(i for i, line in enumerate(lines) if "# here" in line)
    return f"{Path(__file__).name}:{first + offset}"


def example(batch=2):
    return (torch.randn(batch, 3, 8, 12, generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize("trap", [*NOTES, *FATAL], ids=lambda trap: trap.__name__)
def test_a_trap_is_told_with_its_line(trap):
    (found,) = find_traps(Trapped(trap).eval(), example(), batch=None)
    assert found.line.endswith(line_of(trap))
    assert {**NOTES, **FATAL}[trap] in found.what
    assert found.fatal == (trap in FATAL)


@pytest.mark.long
@pytest.mark.parametrize("trap", FATAL, ids=lambda trap: trap.__name__)
def test_what_no_graph_can_hold_is_refused(trap):
    with pytest.raises(InputError, match=r"cannot become a static graph:\n.*test_preflight\.py:\d"):
        check_traps(Trapped(trap).eval(), example(), batch=None)


def lowered(trap):
    module = Trapped(trap).eval()
    return onnx_from_module(module, example(), input_names=["input"], output_names=["output"])


@pytest.mark.long
@pytest.mark.parametrize(
    "trap",
    sorted(FATAL.keys() - {batch_compared}, key=lambda trap: trap.__name__),
    ids=lambda trap: trap.__name__,
)
def test_what_was_told_is_what_the_exporter_cannot_do(trap):
    with pytest.raises(InputError, match=r"exporter (cannot take|gives input the shape \(2,)"):
        lowered(trap)


def test_a_comparison_the_exporter_decides_in_silence():
    """The case for telling beforehand: at a batch of 3 this graph is wrong."""
    assert [node.op_type for node in lowered(batch_compared).graph] == ["Conv"]


def test_with_a_fixed_batch_its_size_may_be_a_number():
    for trap in (batch_compared, batch_as_int, batch_in_a_loop, batch_unpacked):
        assert check_traps(Trapped(trap).eval(), example(), batch=2) == []


def test_a_loop_over_a_value_is_told():
    (found,) = find_traps(Trapped(loop).eval(), example(), batch=None)
    assert found.line.endswith(line_of(loop))


def test_what_is_appended_to_a_list_is_told_by_its_module():
    def append(self, y):
        self.seen.append(y)
        return y

    (found,) = find_traps(nn.Sequential(Trapped(append)).eval(), example(), batch=None)
    assert "stores a tensor in 0.seen" in found.what
    assert "test_preflight.py:" in found.line


def fine(self, y):
    B, C, H, W = y.shape
    y = y.reshape(B, C, H // 2, 2, W).mean(3).flatten(2).transpose(1, 2)
    y = y.reshape(B, -1, C) + torch.zeros(B, 1, C)
    self.size = (H, W)  # numbers are no state
    return nn.functional.interpolate(y[:, None], size=(7, 5), mode="bilinear")


@pytest.mark.parametrize("batch", [None, 4])
def test_sizes_from_shapes_are_no_trap(batch):
    assert find_traps(Trapped(fine).eval(), example(), batch=batch) == []


def test_layers_of_pytorch_are_no_trap():
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(8, 8, 2, 2), nn.InstanceNorm2d(8), nn.AdaptiveAvgPool2d(4),
        nn.PixelShuffle(2), nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, batch_first=True),
        nn.LSTM(64, 8, batch_first=True),
    ).eval()  # fmt: skip
    assert find_traps(layers, example(), batch=None) == []


def test_the_module_is_left_as_it_was():
    module = Trapped(attribute).eval()
    find_traps(module, example(), batch=None)
    assert type(module) is Trapped
    assert not hasattr(module, "kept")


def test_a_pasted_sam_that_keeps_its_modulator_is_told():
    found = find_traps(UNet().eval(), example(), batch=None)
    assert ["PastedSAM.modulator" in trap.what for trap in found] == [True]
