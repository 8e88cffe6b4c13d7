"""Where the error comes from: small everywhere in a sound artefact, named where one is broken."""

import numpy as np
import official_style
import pytest
import tiny_artefacts
import torch
from torch import nn

from sam_deploy.parity import array_samples
from sam_deploy.recipe import recipe_from_dict
from sam_deploy.reference import module_subject
from sam_deploy.verification.effects import Effect
from sam_deploy.verification.groups import groups_of
from sam_deploy.verification.jump import first_jump

pytestmark = pytest.mark.long

BLOCKS = ["block1.0", "block2.0", "block3.0", "block3.1", "block4.0"]
EMBEDS = ["patch_embed1", "patch_embed2", "patch_embed3", "patch_embed4"]
MOST = {"fp32": 3e-6, "fp16": 5e-3, "int8": 0.15, "fp8": 0.25}


@pytest.fixture(scope="module")
def tiny(tiny_recipe, tmp_path_factory):
    """Makes the tiny SMT's artefact in a precision, and its report, once."""
    made, graphs = {}, []

    def make(precision):
        if precision not in made:
            graph = graphs[0] if graphs else None
            folder = tmp_path_factory.mktemp(precision)
            one = tiny_artefacts.make(tiny_recipe(precision=precision), folder, graph=graph)
            graphs.append(one.graph)
            made[precision] = one, one.layers(count=4)
        return made[precision]

    return make


@pytest.mark.parametrize("precision", MOST)
def test_a_sound_artefact_has_small_errors_everywhere_and_no_jump(tiny, precision):
    _, report = tiny(precision)
    modules = [layer.module for layer in report.layers]
    wanted = [*BLOCKS, *EMBEDS, *(f"{b}.{part}" for b in BLOCKS for part in ("attn", "mlp"))]
    assert set(wanted) | {"norm4", "head"} <= set(modules)
    assert (
        modules.index("block1.0.attn") < modules.index("block1.0.mlp") < modules.index("block1.0")
    )
    assert modules[-1] == "head"
    assert all(layer.relative_rms < MOST[precision] for layer in report.layers)
    assert report.jump is None
    assert report.notes == []
    assert report.samples == 4
    assert not set(modules) & set(report.unmatched)
    assert {"block1.0.attn.s", "block3.1.attn.kv", "block2.0.mlp.dwconv"} <= set(report.unmatched)


def test_kinds_and_groups_are_those_of_the_network(tiny):
    _, report = tiny("fp16")
    found = {layer.module: (layer.kind, layer.group) for layer in report.layers}
    assert found["block1.0.attn.proj"] == ("Linear", "block1.0.attn")
    assert found["block3.1.attn"] == ("Attention", "block3.1.attn")
    assert found["block3.1.mlp.act"] == ("GELU", "block3.1.mlp")
    assert found["patch_embed1.conv.3"] == ("Conv2d", "patch_embed1.conv")
    assert found["block2.0.norm1"] == ("LayerNorm", "block2.0.norm1")
    assert found["block2.0"] == ("Block", "block2.0")
    assert found["head"] == ("Linear", "head")


@pytest.mark.parametrize(("precision", "lines"), [("fp16", "[[islands]]"), ("int8", "keep = [")])
def test_suggestions_begin_with_what_adds_most(tiny, precision, lines):
    _, report = tiny(precision)
    assert report.suggestions[0].group == "patch_embed1.conv"
    assert lines in report.suggestions[0].lines
    assert report.suggestions[0].growth > 1
    groups = [suggestion.group for suggestion in report.suggestions]
    assert len(groups) == len(set(groups)) > 10
    assert not {"block1.0", "head.", "logits"} & set(groups)


def test_in_fp32_there_is_nothing_to_keep_in_higher_precision(tiny):
    made, report = tiny("fp32")
    assert report.suggestions == []
    broken = made.layers(made.broken("block3.1.attn.proj.bias", np.zeros_like), count=2)
    assert broken.suggestions == []
    assert broken.samples == 2


def one_half_more(array):
    changed = array.copy()
    changed.flat[np.abs(array).argmax()] *= 1.5
    return changed


SABOTAGE = {
    "a weight": ("block2.0.mlp.fc1.weight", one_half_more, "block2.0.mlp", ("fp32", "fp16")),
    "a bias": ("block3.1.attn.proj.bias", np.zeros_like, "block3.1.attn", ("fp16",)),
    "nothing finite": (
        "block3.0.attn.proj.bias",
        lambda array: np.full_like(array, np.inf),
        "block3.0.attn",
        ("int8",),
    ),
    "an input's scale": (
        "block2.0.mlp.fc1.input_scale",
        lambda scale: scale / 2,
        "block2.0.mlp",
        ("int8",),
    ),
    "a weight's scale": (
        "block1.0.attn.proj.weight.scale",
        lambda scale: scale / 2,
        "block1.0.attn",
        ("int8",),
    ),
}


@pytest.mark.parametrize(
    ("precision", "case"), [(p, case) for case, (*_, kinds) in SABOTAGE.items() for p in kinds]
)
def test_the_jump_names_what_is_broken(tiny, precision, case):
    made, sound = tiny(precision)
    name, change, group, _ = SABOTAGE[case]
    report = made.layers(made.broken(name, change), count=2)
    assert report.jump == group
    before = [layer.group for layer in report.layers].index(group)
    for broken, healthy in zip(report.layers[:before], sound.layers[:before], strict=True):
        assert broken.module == healthy.module
        assert broken.relative_rms < MOST[precision]
    worst = max(layer.relative_rms for layer in report.layers if layer.group == group)
    assert worst > 2 * max(layer.relative_rms for layer in report.layers[:before])
    if precision != "fp32":
        assert report.suggestions[0].group == group


def test_as_many_values_are_held_as_fit(tiny, monkeypatch):
    made, whole = tiny("fp16")
    monkeypatch.setattr("sam_deploy.verification.matching.CHUNK_BYTES", 2**17)
    parts = made.layers(count=1)
    assert [layer.module for layer in parts.layers] == [layer.module for layer in whole.layers]
    assert all(layer.relative_rms < MOST["fp16"] for layer in parts.layers)


# networks of one's own


def own(net, example, precision, folder, **options):
    recipe = recipe_from_dict(
        {"model": "some:net", "precision": precision, "allow_islands": 1.0, **options}, "a test"
    )
    torch.manual_seed(0)
    subject = module_subject(net, example, recipe, None, [])
    random = np.random.default_rng(0)

    def samples(count):
        return array_samples(
            "npz",
            {
                name: random.standard_normal((count, *a.shape[1:])).astype(a.dtype)
                if a.dtype.kind == "f"
                else random.integers(0, 10, (count, *a.shape[1:]))
                for name, a in subject.examples().items()
            },
        )

    return tiny_artefacts.make(
        recipe, folder, subject=subject, validation=samples(4), calibration=samples(16)
    )


def test_a_network_of_ones_own(tmp_path):
    torch.manual_seed(0)
    made = own(official_style.UNet(), torch.randn(2, 3, 16, 24), "fp16", tmp_path)
    sound = made.layers()
    assert {"sam1", "down2", "sam2", "up2", "up1"} <= {layer.module for layer in sound.layers}
    assert sound.jump is None
    for weight, group in (("sam2.proj.bias", "sam2"), ("up2.bias", "up2")):
        assert made.layers(made.broken(weight, lambda bias: bias + 1)).jump == group


class Pair(nn.Module):
    """Gives nothing, a tensor and a number."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return None, (self.fc(x), 3)


class Nothing(nn.Module):
    def forward(self, x):
        return None


class Odd(nn.Module):
    """Two inputs, outputs in a dict; modules called twice, never, under two names, in place."""

    def __init__(self):
        super().__init__()
        self.twice, self.unused, self.pair = nn.Linear(8, 8), nn.Linear(8, 8), Pair()
        self.again, self.nothing = self.twice, Nothing()
        self.act, self.out, self.words = nn.ReLU(inplace=True), nn.Linear(8, 4), nn.Embedding(10, 8)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))

    def forward(self, x, ids):
        h = self.again(self.act(self.twice(x) + self.words(ids)))
        self.nothing(h)
        _, (h, _) = self.pair(h)
        h = self.normed(h)
        y = self.out(h)
        return {"y": (2 * y).tanh(), "class": y.argmax(-1), "inner": (h, x * 2)}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_whatever_a_network_returns_and_calls(tmp_path, precision):
    torch.manual_seed(0)
    example = (torch.randn(2, 5, 8), torch.randint(0, 10, (2, 5)))
    made = own(Odd(), example, precision, tmp_path)
    report = made.layers()
    found = {layer.module: layer for layer in report.layers}
    assert {"twice", "words", "act", "pair", "pair.fc", "normed", "out", "output y"} <= set(found)
    assert not {"unused", "again", "nothing", "output class"} & set(found)
    assert found["pair"].group == found["pair.fc"].group == "pair"
    assert found["output y"].kind == "Odd"
    assert all(layer.relative_rms < MOST[precision] for layer in report.layers)
    assert report.jump is None
    assert made.layers(made.broken("out.bias", lambda bias: bias + 1)).jump == "out"


def test_a_fixed_batch_and_fp16_ends(tmp_path):
    net, example = tiny_artefacts.cancelling()
    report = own(net, example, "fp16", tmp_path, batch=3, io_dtype="fp16").layers(count=4)
    assert report.samples == 4  # the second batch is filled up
    assert report.jump == "parts.2"
    assert report.layers[-1].module == "head"


def test_a_jump_is_too_much_or_much_more_than_the_others():
    others = {f"block.{i}": Effect(0.01, 0.002) for i in range(10)}
    among = [*others, "wrong"]

    def jump(effect, quantized=among, **more):
        return first_jump({**others, "wrong": effect, **more}, "int8", quantized)

    assert jump(Effect(0.02, 0.04)) == "wrong"  # most of the 0.05 that are allowed
    assert jump(Effect(0.02, 0.03)) is None
    assert jump(Effect(0.08, 0.02)) == "wrong"
    assert jump(Effect(0.08, 0.01)) is None  # little of it arrives
    assert jump(Effect(0.08, 0.02), quantized=list(others)) is None  # alone in FP16
    assert jump(Effect(0.08, 0.02), later=Effect(0.5, 0.5)) == "wrong"
    assert first_jump({"wrong": Effect(1e-3, 1e-3)}, "fp32", []) == "wrong"
    assert first_jump({}, "fp16", []) is None


def test_groups_are_what_holds_layers_and_no_more():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.body = official_style.UNet()
            self.many = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))

    groups = groups_of(nn.Sequential(Outer()))
    assert groups["0.stem"] == "0.stem"
    assert groups["0.body.down1"] == "0.body.down1"
    assert groups["0.body.sam1.local_conv_2"] == "0.body.sam1"
    assert groups["0.body"] == "0.body"
    assert groups["0.many.3"] == "0.many.3"
