"""ONNX Runtime rounds the biases of quantized layers unless it is told not to: `load` tells it."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import sam_deploy
from sam_deploy.agreement import relative_rms

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network in FP8 whose biases ONNX Runtime's own optimizer spoils, and what was exported."""
    torch.manual_seed(0)
    sizes = [(16, 64), (64, 64), (64, 64), (64, 8)]
    layers = [layer for size in sizes for layer in (nn.Linear(*size), nn.ReLU())][:-1]
    generator = torch.Generator().manual_seed(1)
    module = nn.Sequential(*layers).eval()
    done = sam_deploy.export(
        module,
        torch.randn(64, 16, generator=generator),
        out=tmp_path_factory.mktemp("hosts") / "net",
        precision="fp8",
        calibration=torch.randn(256, 16, generator=generator),  # a tensor is one batch
        plans=sam_deploy.PlanOptions(engines=["none"]),
    )
    return module, done


def test_load_runs_it_as_it_was_checked(exported):
    module, done = exported
    x = torch.randn(100, 16, generator=torch.Generator().manual_seed(2))
    expected = module(x).detach().numpy()
    ours = sam_deploy.load(done.bundle)(x.numpy())
    session = onnxruntime.InferenceSession(
        done.bundle / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (plain,) = session.run(None, {"input": x.numpy()})
    assert relative_rms(ours, expected) < 0.05
    assert relative_rms(plain, expected) > 2 * relative_rms(ours, expected)


def test_who_runs_it_elsewhere_is_told(exported):
    _, done = exported
    (note,) = [note for note in done.notes if "other hosts" in note]
    assert "disabled_optimizers=['WeightBiasQuantization']" in note
    assert done.manifest.precision.quantization.calibration.samples == 256


def test_what_the_note_says_helps(exported):
    _, done = exported
    x = torch.randn(100, 16, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(
        done.bundle / "model.onnx",
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["WeightBiasQuantization"],
    )
    (found,) = session.run(None, {"input": x.numpy()})
    np.testing.assert_array_equal(found, sam_deploy.load(done.bundle)(x.numpy()))


def test_a_linear_layer_on_tokens_with_a_free_batch(tmp_path):
    module = nn.Linear(16, 8).eval()
    out, example = tmp_path / "linear", torch.randn(8, 6, 16)
    done = sam_deploy.export(
        module, example, out=out, plans=sam_deploy.PlanOptions(engines=["none"])
    )
    assert done.manifest.inputs[0].dims == ["batch", 6, 16]
    found = sam_deploy.load(out)(example[:3].numpy())
    np.testing.assert_allclose(found, module(example[:3]).detach().numpy(), atol=1e-5)
