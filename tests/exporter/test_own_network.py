"""A network of the user's own becomes a bundle that computes what the network computes."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from conftest import TINY, golden
from official_style import Attention, Backbone, Block, PastedSAM, UNet
from onnx.reference import ReferenceEvaluator
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import sam_deploy
from sam_deploy.agreement import relative_rms
from sam_deploy.architecture import Architecture
from sam_deploy.bundle import read_bundle
from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.progress import Progress

pytestmark = pytest.mark.export

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE = (32, 48)
IMAGES = sam_deploy.Preprocessing(size_px=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def example(rows=2, *shape):
    return torch.randn(rows, *(shape or (3, *SIZE)), generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two inputs of two dtypes and a constant, three outputs of two dtypes in a dict."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.sam = PastedSAM(8)
        self.head = nn.Linear(8, 5)

    def forward(self, feature, tokens, scale: float):
        x = self.sam(feature + self.table(tokens)[:, None, :] * scale, 4, 6)
        scores = self.head(x)
        return {"scores": scores, "pair": (scores.argmax(-1), scores.mean((1, 2)))}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    module = golden(Two())
    inputs = (example(4, 24, 8), torch.tensor([0, 3, 6, 1]), 0.5)
    out = tmp_path_factory.mktemp("own") / "two"
    return module, inputs, sam_deploy.export(module, inputs, out=out)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_unet_with_two_pasted_sams(tmp_path, precision):
    module = golden(UNet()).train()
    done = sam_deploy.export(module, example(), out=tmp_path / "unet", precision=precision)
    assert module.training, "left as it was"
    assert done.bundle == tmp_path / "unet"
    manifest = read_bundle(done.bundle)
    assert manifest == done.manifest
    assert manifest.model.kind == "module"
    assert manifest.weights.source == "module"
    assert manifest.rewrites.fired["static_shapes"] == 2
    assert manifest.parity[0].data == "example"
    engine = sam_deploy.load(done.bundle)
    for rows in (1, 3):
        x = example(rows)
        with torch.no_grad():
            expected = module.eval()(x).numpy()
        limit = {"fp32": 1e-5, "fp16": 3e-3}[precision]
        assert relative_rms(engine(x.numpy()), expected) < limit
        model = onnx.load(done.bundle / "model.onnx")
        (evaluated,) = ReferenceEvaluator(model).run(None, {"input": x.numpy()})
        assert relative_rms(evaluated, expected) < limit


def test_several_inputs_and_outputs_have_names(two):
    module, (feature, tokens, scale), done = two
    manifest = done.manifest
    assert [(i.name, i.dtype, i.dims) for i in manifest.inputs] == [
        ("feature", "float32", ["batch", 24, 8]),
        ("tokens", "int64", ["batch"]),
    ]
    assert [(o.name, o.dtype, o.dims) for o in manifest.outputs] == [
        ("scores", "float32", ["batch", 24, 5]),
        ("pair_0", "int64", ["batch", 24]),
        ("pair_1", "float32", ["batch"]),
    ]
    by_name = {output.name: output for output in manifest.parity[0].outputs}
    assert by_name["pair_0"].equal_elements == 1
    assert by_name["scores"].relative_rms < 1e-5
    engine = sam_deploy.load(done.bundle)
    found = engine(feature.numpy(), tokens=tokens.numpy())
    with torch.no_grad():
        expected = module(feature, tokens, scale)
    np.testing.assert_array_equal(found["pair_0"], expected["pair"][0])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)


def test_an_engine_of_several_inputs_refuses_what_does_not_fit(two):
    _, (feature, tokens, _), done = two
    engine = sam_deploy.load(done.bundle)
    x, t = feature.numpy(), tokens.numpy()
    engine(x, t.astype(np.int8))
    for arrays, named, said in [
        ((x,), {}, "expected the inputs feature, tokens, once each; got 1 in order"),
        ((x, t, t), {}, "got 3 in order"),
        ((x, t), {"tokens": t}, "got 2 in order and tokens"),
        ((x,), {"token": t}, "got 1 in order and token"),
        ((x, t[:3]), {}, "input tokens has batch 3, the inputs before it 4"),
        ((x, t.astype(np.float32)), {}, "input tokens is float32; expected int64"),
        ((x, np.full(4, 2**63, np.uint64)), {}, "input tokens is uint64"),
        ((x.astype(np.int64), t), {}, "input feature is int64; expected float32"),
    ]:
        with pytest.raises(InputError, match=said):
            engine(*arrays, **named)


def test_names_may_be_given(tmp_path):
    done = sam_deploy.export(
        golden(UNet()), example(), out=tmp_path / "a", input_names=["photo"], output_names=["mask"]
    )
    assert (done.manifest.inputs[0].name, done.manifest.outputs[0].name) == ("photo", "mask")
    assert sam_deploy.load(done.bundle)(photo=example().numpy()).shape == (2, 2, *SIZE)


def test_parity_on_an_npz_and_on_images(tmp_path):
    module = golden(UNet())
    np.savez(tmp_path / "a.npz", input=example(5).numpy())
    done = sam_deploy.export(module, example(), out=tmp_path / "a", data=tmp_path / "a.npz")
    assert (done.manifest.parity[0].data, done.manifest.parity[0].samples) == ("npz", 5)

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.effect_noise((60, 50), 90 + i).convert("RGB").save(photos / f"{i}.png")
    (photos / "bad.jpg").write_bytes(b"no photo")
    said = []

    class Noting(Progress):
        def note(self, text):
            said.append(text)

    done = sam_deploy.export(
        module,
        example(),
        out=tmp_path / "b",
        preprocessing=IMAGES,
        data=photos,
        batch=2,
        progress=Noting(),
    )
    (report,) = done.manifest.parity
    assert (report.data, report.samples, report.unreadable) == ("folder", 3, 1)
    assert said == done.notes
    assert "1 of 4 images were left out" in said[-1]
    assert "bad.jpg cannot be read" in said[-1]
    assert done.manifest.preprocessing == IMAGES
    assert done.manifest.inputs[0].dims == [2, 3, *SIZE]


def test_with_preprocessing_and_no_data_parity_is_on_the_built_in_images(tmp_path):
    done = sam_deploy.export(
        golden(UNet()), example(1), out=tmp_path / "a", preprocessing=IMAGES, precision="fp16"
    )
    assert (done.manifest.parity[0].data, done.manifest.parity[0].samples) == ("synthetic", 33)


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = UNet()
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.net(x).mean((2, 3)))


def test_with_class_names_it_classifies(tmp_path):
    done = sam_deploy.export(
        golden(Scores()),
        example(),
        out=tmp_path / "a",
        preprocessing=IMAGES,
        class_names=["cat", "dog", "cow"],
    )
    assert done.manifest.model.kind == "classifier"
    assert done.manifest.parity[0].outputs[0].top1_agreement == 1
    engine = sam_deploy.load(done.bundle)
    ((first, second),) = engine.classify(Image.effect_noise((60, 50), 90), top=2)
    assert {first.name, second.name} < {"cat", "dog", "cow"}
    assert first.score >= second.score


def test_a_network_without_sam_goes_through_and_says_so(tmp_path):
    done = sam_deploy.export(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), example(), out=tmp_path / "a"
    )
    assert done.manifest.rewrites.fired == {}
    assert done.manifest.model.name == "torch.nn.modules.container:Sequential"


def test_the_gate_is_red_for_another_network(tmp_path, monkeypatch):
    from sam_deploy.exporter import lowered

    def spoiled(module, *rest):
        rewritten, report = rewrite(module, *rest)
        with torch.no_grad():
            rewritten.get_parameter("up1.weight")[0] *= 1.02
        return rewritten, report

    rewrite = lowered.rewrite
    monkeypatch.setattr(lowered, "rewrite", spoiled)
    with pytest.raises(CheckFailed, match=r"(?s)output: relative RMS .*a\.rejected"):
        sam_deploy.export(golden(UNet()), example(), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


class Crashing(nn.Module):
    def forward(self, x):
        return x.reshape(5, -1)  # crashes here


@pytest.mark.parametrize(
    ("module", "inputs", "options", "said"),
    [
        ("unet", example(), {}, "got a str; expected a torch.nn.Module"),
        (UNet(), np.zeros((1, 3, 32, 48), np.float32), {}, "an example input is a ndarray"),
        (UNet(), (), {}, "got no tensor"),
        (UNet(), torch.tensor(1.0), {}, r"batch in dimension 0.*got \(\)"),
        (Two(), (example(2, 24, 8), torch.zeros(3, dtype=int), 1.0), {}, r"got \(2, 24, 8\), \(3,"),
        (Crashing(), example(), {}, r"does not run .*test_own_network\.py:\d+: RuntimeError"),
        (UNet(), example(), {"input_names": ["a", "b"]}, "got 2 input names for 1 tensors"),
        (UNet(), example(), {"output_names": ["a", "b"]}, "returns 1 tensors; got 2 output"),
        (UNet(), example(), {"output_names": ["input"]}, "input: inputs and outputs need a name"),
        (UNet(), example(), {"precision": "int4"}, "precision"),
        (UNet(), example(), {"batch": 0}, "batch: Expected `int` >= 1"),
        (UNet(), example(), {"allow_islands": 2}, "allow_islands"),
        (UNet(), example(), {"data": "gone.npz"}, r"gone\.npz does not exist"),
        (UNet(), example(), {"data": "."}, "no preprocessing to make inputs of images"),
        (UNet(), example(), {"preprocessing": sam_deploy.Preprocessing(size_px=(9, 9))},
         r"preprocessing gives one image of shape \(3, 9, 9\)"),
        (UNet(), example(), {"class_names": ["a", "b"]}, "class names need preprocessing"),
        (UNet(), example(), {"class_names": ["a", "b"], "preprocessing": IMAGES},
         r"the output has shape \(2, 2, 32, 48\); for 2 class names"),
        (UNet(), torch.zeros(2, 3, *SIZE), {}, "constant"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_leaves_nothing(tmp_path, module, inputs, options, said):
    with pytest.raises(InputError, match=said):
        sam_deploy.export(module, inputs, out=tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "holds nothing; expected an array for each input: input"),
        ({"x": np.zeros((2, 3, *SIZE), np.float32)}, "holds x; expected an array"),
        ({"input": np.zeros((2, 3, 9, 9), np.float32)}, r"shape \(2, 3, 9, 9\); expected \(samp"),
        ({"input": np.array([{}])}, "cannot be read as an .npz of plain arrays"),
        ({"input": np.zeros((2, 3, *SIZE), complex)}, "is complex128; expected float32"),
    ],
)
def test_an_npz_that_does_not_fit_is_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=said):
        sam_deploy.export(UNet(), example(), out=tmp_path / "a", data=tmp_path / "a.npz")


def run(*argv, cwd=EXAMPLES):
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True)


def test_the_example_runs_from_definition_to_engine(tmp_path):
    done = run(sys.executable, "unet.py", tmp_path / "unet")
    assert (done.returncode, done.stderr) == (0, "")
    rewritten, scores, classes = done.stdout.splitlines()
    assert "'static_shapes': 2" in rewritten
    assert scores.startswith("scores (3, 5, 96, 128) float32: ")
    assert classes.startswith("classes (3, 96, 128) int64: ")
    for line in (scores, classes):
        assert float(line.split(": ")[1].partition("%")[0]) > 99


@pytest.mark.slow
def test_the_example_goes_through_the_command_with_weights(tmp_path):
    sys.path.insert(0, str(EXAMPLES))
    import unet

    state = golden(unet.UNet()).state_dict()
    save_file(
        {f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors"
    )
    command = Path(sys.executable).parent / "sam-export"
    argv = [command, "--model", "unet:make", "--weights", tmp_path / "w.safetensors"]
    done = run(*argv, "--out", tmp_path, "--name", "unet")
    assert done.returncode == 0, done.stderr
    assert "unet:make, module" in done.stdout
    network = unet.UNet()
    network.load_state_dict(state)
    x = example(1, 3, *unet.SIZE)
    with torch.no_grad():
        expected = network.eval()(x)["scores"]
    found = sam_deploy.load(tmp_path / "unet")(x.numpy())["scores"]
    np.testing.assert_allclose(found, expected, atol=1e-4)

    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'model = "unet:UNet"\nimage_size = [64, 96]\nprecision = "fp16"\n'
        'weights = "w.safetensors"\n[preprocessing]\nsize_px = [64, 96]\nmean = [0.5, 0.5, 0.5]\n'
    )
    done = run(command, recipe, "--out", tmp_path, "--std", "0.5", "0.5", "0.5", "--no-crop")
    assert done.returncode == 0, done.stderr
    manifest = read_bundle(tmp_path / "UNet-fp16-64x96")
    assert manifest.preprocessing.mean == manifest.preprocessing.std == (0.5, 0.5, 0.5)
    assert manifest.recipe.weights == "w.safetensors"


class Detector(nn.Module):
    """An official-style backbone under a neck, and a block of attention beside it."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone(msgspec.convert(TINY, Architecture))
        self.block = Block(Attention(32, -1, 4, 0), 64)
        self.lateral = nn.ModuleList(nn.Conv2d(dim, 6, 1) for dim in TINY["dims"])

    def forward(self, image):
        maps = self.backbone(image)
        top = maps[-1]
        tokens = self.block(top.flatten(2).transpose(1, 2), *top.shape[2:])
        top = top + tokens.transpose(1, 2).reshape(top.shape)
        found = [conv(x) for conv, x in zip(self.lateral, [*maps[:-1], top], strict=True)]
        return tuple(found)


def test_a_backbone_and_a_block_inside_a_detector(tmp_path):
    module = golden(Detector())
    done = sam_deploy.export(module, example(3, 3, 64, 96), out=tmp_path / "d", precision="fp16")
    assert done.manifest.rewrites.fired["static_shapes"] == 2
    assert not any(rule.refused for rule in done.manifest.rewrites.rules)
    assert "Shape" not in done.manifest.graph.operators
    found = sam_deploy.load(done.bundle)(example(2, 3, 64, 96).numpy())
    with torch.no_grad():
        expected = module(example(2, 3, 64, 96))
    assert list(found) == [f"output_{i}" for i in range(4)]
    for array, tensor in zip(found.values(), expected, strict=True):
        assert relative_rms(array, tensor.numpy()) < 3e-3
