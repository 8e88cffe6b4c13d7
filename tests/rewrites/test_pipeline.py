"""The whole pass: any SMT in any form, foreign networks left working, broken rules caught."""

import copy
import dataclasses
import itertools

import msgspec
import official_style
import pytest
import torch
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_checks import ARCHITECTURE, attention, images, sam, seeded, smt, token_inputs
from torch import nn

from sam_deploy.agreement import relative_rms
from sam_deploy.architecture import Architecture
from sam_deploy.errors import InputError, RewriteError
from sam_deploy.models import SAM, SMT
from sam_deploy.rewrites import PIPELINE, RewriteOptions, pipeline, rewrite
from sam_deploy.rewrites._run import tensors

FORMS = [
    RewriteOptions(
        heads=heads,
        aggregation=aggregation,
        projections=projections,
        linear=linear,
        anchors=anchors,
    )
    for heads, aggregation, projections, linear, anchors in itertools.product(
        ("merged", "separate"),
        ("dense", "grouped"),
        ("joined", "separate"),
        ("conv", "matmul", "gemm"),
        ("none", "identity"),
    )
    if (heads, aggregation) != ("separate", "grouped")
    and (linear, anchors)[::-1]
    in (
        ("none", linear),
        ("identity", "conv"),
    )
]


def agree(rewritten, module, inputs, tolerance=1e-5):
    with torch.no_grad():
        pairs = zip(tensors(rewritten(*inputs)), tensors(module(*inputs)), strict=True)
        return all(relative_rms(a.numpy(), b.numpy()) < tolerance for a, b in pairs)


def held(module, *inputs, options=None):
    """Rewrite and compare in float32; the rewritten module and its report."""
    rewritten, report = rewrite(module, inputs, options)
    assert agree(rewritten, module.eval(), inputs)
    return rewritten, report


def refused(report):
    return {refusal.module: refusal.reason for rule in report.rules for refusal in rule.refused}


# Ours, the official style, and pasted


@pytest.mark.long
@pytest.mark.parametrize("options", FORMS, ids=lambda o: "-".join(msgspec.structs.astuple(o)))
def test_every_form(tiny_model, options):
    _, report = held(tiny_model(layer_scale=True), images(), options=options)
    assert not refused(report)
    assert report.operators_after < report.operators_before


def test_report(tiny_model):
    _, report = held(tiny_model(), images())
    assert [rule.rule for rule in report.rules] == [rule.name for rule in PIPELINE]
    assert report.fired["static_shapes"] == 1
    assert report.fired["fold_batch_norm"] == 4
    assert "dense_aggregation" not in report.fired


def test_official_style_gives_the_same_graph(tiny_model):
    ours, our_report = held(tiny_model(num_classes=5), images())
    theirs, their_report = held(smt(), images())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert our_report.operators_after == their_report.operators_after
    assert not refused(their_report)


def test_feature_maps_keep_their_kind(tiny_model):
    rewritten, _ = held(tiny_model(features=True), images())
    assert type(rewritten(images())) is tuple
    rewritten, report = held(golden(official_style.Backbone(ARCHITECTURE)), images())
    assert type(rewritten(images())) is list
    assert report.fired["static_shapes"] == 1


def test_feature_maps_in_a_dict():
    class Named(official_style.Backbone):
        def forward(self, x):
            return {f"p{i}": m for i, m in enumerate(self.maps(x), start=2)}

    rewritten, report = held(golden(Named(ARCHITECTURE)), images())
    assert list(rewritten(images())) == ["p2", "p3", "p4", "p5"]
    assert refused(report) == {"": "it returns a dict, expected a tensor, list or tuple"}
    assert report.fired["static_shapes"] == 5


def test_some_feature_maps():
    class Some(official_style.Backbone):
        def forward(self, x):
            return self.maps(x)[1:]

    _, report = held(golden(Some(ARCHITECTURE)), images())
    assert "computes something else" in refused(report)[""]
    assert report.fired["static_shapes"] == 5


def test_no_classes(tiny_model):
    held(tiny_model(num_classes=0), images())


def test_unet_with_pasted_blocks():
    unet = golden(official_style.UNet())
    rewritten, report = held(unet, images(64, 48))
    assert report.fired["static_shapes"] == 2
    assert not refused(report)
    assert isinstance(rewritten.norm1, nn.BatchNorm2d)  # not ours to fold
    assert agree(rewritten, unet, (images(32, 40),))  # other sizes, too


def test_one_block_at_two_sizes():
    unet = official_style.UNet(lambda dim: official_style.PastedSAM(8, 2))
    shared = unet.sam1

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = shared, shared

        def forward(self, x):
            half = nn.functional.avg_pool2d(x, 2)
            return unet.mixed(self.a, x), unet.mixed(self.b, half)

    rewritten, report = held(golden(Twice()), torch.randn(2, 8, 8, 12))
    assert report.fired["static_shapes"] == 1
    assert rewritten.a is rewritten.b


@settings(max_examples=25, deadline=None)
@given(
    options=st.sampled_from(FORMS),
    heads=st.integers(1, 4),
    groups=st.integers(1, 3),
    expand=st.integers(1, 3),
    bias=st.booleans(),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    own=st.booleans(),
)
def test_any_sam(options, heads, groups, expand, bias, height, width, own):
    module = SAM if own else official_style.PastedSAM
    module = module(heads * groups, heads, qkv_bias=bias, expand_ratio=expand)
    inputs = token_inputs(heads * groups, height, width)
    _, report = held(golden(module), *inputs, options=options)
    assert report.fired["static_shapes"] == 1


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(
    options=st.sampled_from(FORMS),
    heads=st.tuples(*[st.sampled_from([1, 2, 4])] * 3),
    expand=st.integers(1, 3),
    height=st.integers(32, 80),
    width=st.integers(32, 80),
    layer_scale=st.booleans(),
    features=st.booleans(),
)
def test_any_smt(options, heads, expand, height, width, layer_scale, features):
    architecture = Architecture(
        dims=(4, 8, 8, 16),
        depths=(1, 1, 3, 1),
        mlp_ratios=(1, 2, 1, 2),
        sam_heads=heads,
        attention_heads=(heads[0], 8),
        expand_ratio=expand,
    )
    module = SMT(architecture, num_classes=3, layer_scale=layer_scale, features=features)
    # In float64: the few logits of so small a network may nearly cancel in float32.
    module, x = golden(module).double(), images(height, width).double()
    rewritten, report = rewrite(module, (x,), options)
    assert agree(rewritten, module, (x,), tolerance=1e-10)
    assert not refused(report)


# What the result is, and what the original stays


@pytest.mark.parametrize("options", [FORMS[0], RewriteOptions(), FORMS[2], FORMS[-1]])
def test_batch_stays_free(tiny_model, options):
    module = tiny_model()
    rewritten, _ = rewrite(module, (images()[:1],), options)
    for batch in (1, 2, 5):
        assert agree(rewritten, module, (seeded(batch, 3, 33, 50),))


@pytest.mark.parametrize("training", [True, False])
def test_the_original_is_untouched(training):
    module = smt(layer_scale=True).train(training)
    before = copy.deepcopy(module.state_dict())
    text, trained = str(module), [p.requires_grad for p in module.parameters()]
    rewritten, _ = rewrite(module, (images(),))
    assert not any(part.training for part in rewritten.modules())
    assert all(part.training is training for part in module.modules())
    assert str(module) == text
    assert [p.requires_grad for p in module.parameters()] == trained
    assert before.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert agree(rewritten, module.eval(), (images(),))
    with torch.no_grad():
        for parameter in rewritten.parameters():
            parameter.zero_()
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)


def test_half_precision_stays_half():
    rewritten, _ = rewrite(sam().to(torch.bfloat16), token_inputs())
    assert {p.dtype for p in rewritten.parameters()} == {torch.bfloat16}


def test_after_a_forward_with_gradients():
    module = smt()
    module(images())
    assert module.block1[0].attn.modulator.grad_fn is not None
    rewritten, _ = held(module, images())
    assert not any(
        isinstance(v, torch.Tensor) for m in rewritten.modules() for v in vars(m).values()
    )


def test_stored_in_a_list():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.sam, self.kept = sam(), []

        def forward(self, x, H, W):
            self.kept = [self.sam(x, H, W)]
            return self.kept[0]

    module = Keeping()
    module(*token_inputs())
    rewritten, _ = rewrite(module, token_inputs())
    assert len(rewritten.kept) == 1  # what the user's forward left, nothing of ours


@pytest.mark.long
def test_compiles(tiny_model):
    module = tiny_model()
    rewritten, _ = rewrite(module, (images(),))
    compiled = torch.compile(rewritten, backend="aot_eager", fullgraph=True)
    assert agree(compiled, module, (images(),))


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # the exporter's notes about itself
def test_exports_with_the_stock_exporter(tiny_model, tmp_path):
    import onnxruntime

    module = tiny_model()
    rewritten, _ = rewrite(module, (images(64, 32),))
    image = images(64, 32)
    program = torch.onnx.export(rewritten, (image,), dynamo=True, verbose=False)
    program.save(tmp_path / "tiny.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        assert relative_rms(logits, module(image).numpy()) < 1e-5


# Foreign networks


class Around(nn.Module):
    """A network around a SAM; `use` says how it uses it."""

    def __init__(self, use, inner=None):
        super().__init__()
        self.inner = sam() if inner is None else inner
        self.out = nn.Linear(12, 4)
        self.use = use

    def forward(self, x, H, W):
        return self.out(self.use(self, x, H, W))


def test_unknown_networks_pass_through():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    rewritten, report = held(plain.eval(), images())
    assert not report.fired
    assert not refused(report)
    assert report.operators_after == report.operators_before
    assert str(rewritten) == str(plain)


def test_look_alikes_are_left_working():
    class Gated(official_style.PastedSAM):
        def forward(self, x, H, W):
            return super().forward(x, H, W) + 1e-3 * x

    unet = golden(official_style.UNet(Gated))
    rewritten, report = rewrite(unet, (images(32, 32),))
    assert set(refused(report)) == {"sam1", "sam2"}
    assert all("computes something else" in reason for reason in refused(report).values())
    assert type(rewritten.sam1) is Gated
    assert not hasattr(rewritten.sam1, "modulator")  # nothing stored by the comparisons
    assert agree(rewritten, unet, (images(32, 32),))


def test_constants_and_caches_of_the_network_stay():
    class Shifted(Around):
        def __init__(self):
            super().__init__(None)
            self.mean, self.cache, self.grids = torch.arange(12.0), None, {}

        def forward(self, x, H, W):
            if self.cache is None:
                self.cache = torch.ones(12, dtype=x.dtype)
            grid = self.grids.setdefault(H, torch.ones(12, dtype=x.dtype))
            return self.out(self.inner(x - self.mean, H, W) * self.cache * grid)

    rewritten, _ = rewrite(Shifted().eval(), token_inputs())
    assert rewritten.cache is None
    assert not rewritten.grids
    assert rewritten(*token_inputs()).dtype is torch.float32
    held(Shifted().eval(), *token_inputs())


def test_settings_of_a_block_can_be_read():
    module = Around(lambda m, x, H, W: m.inner(x, H, W) * m.inner.ca_num_heads)
    _, report = held(module, *token_inputs())
    assert report.fired["static_shapes"] == 1


def test_a_network_that_reaches_into_a_block_is_told_so():
    def modulated(m, x, H, W):
        return m.inner(x, H, W) + m.inner.modulator.flatten(2).transpose(1, 2)

    with pytest.raises(RewriteError, match=r"static_shapes the module fails.*modulator"):
        rewrite(Around(modulated), token_inputs())


def test_forward_called_by_name():
    _, report = held(Around(lambda m, x, H, W: m.inner.forward(x, H, W)), *token_inputs())
    assert report.fired["static_shapes"] == 1


def test_a_backbone_used_by_its_parts():
    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.out = smt(), nn.Linear(32, 3)

        def forward(self, x):
            return self.out(self.backbone.forward_features(x))

    _, report = held(Features(), images())
    assert refused(report) == {"backbone": "its forward is not called on the example inputs"}
    assert report.fired["static_shapes"] == 5


@pytest.mark.long
def test_shared_parts_and_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = sam(), sam(), attention()
            self.b.proj0, self.b.bn = self.a.proj0, self.a.bn
            self.b.local_conv_1 = self.a.local_conv_1
            self.b.s.weight = self.a.v.weight
            self.a.proj.weight = self.c.q.weight

        def forward(self, x, H, W):
            return self.c(self.b(self.a(x, H, W), H, W), H, W) + self.a(x, H, W)

    for options in FORMS:
        _, report = held(Tied(), *token_inputs(), options=options)
        assert report.fired["static_shapes"] == 3


@pytest.mark.long
def test_batch_norm_without_statistics():
    module = smt()
    module.block1[0].attn.bn = nn.BatchNorm2d(16, track_running_stats=False)
    for options in FORMS:
        _, report = held(module, images(), options=options)
        assert refused(report) == {"block1.0.attn": "its BatchNorm keeps no running statistics"}


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrized_weights(norm):
    parametrize = getattr(nn.utils.parametrizations, norm)
    module = smt()
    for part in (module.block1[0].attn.proj0, module.block1[0].mlp.dwconv.dwconv, module.head):
        parametrize(part)
    _, report = held(module.eval(), images())
    assert not refused(report)
    assert hasattr(module.head, "parametrizations")  # the original keeps them


def test_other_outputs():
    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = golden(official_style.UNet())

        def forward(self, x):
            y = self.unet(x)
            return {"map": y, "label": y.argmax(1), "mask": y > 0}

    _, report = held(Labels(), images(32, 32))
    assert report.fired["static_shapes"] == 2


# What is refused as a whole


def test_constant_outputs_are_refused():
    module = sam()
    module.proj.weight.data.zero_()
    module.proj.bias.data.fill_(1)
    with pytest.raises(InputError, match="constant"):
        rewrite(module, token_inputs())


def test_constant_inputs_are_refused():
    # without biases v(0) = 0, and the output is proj's bias whatever the modulator is
    with pytest.raises(InputError, match="random example inputs"):
        rewrite(sam(), (torch.zeros(1, 30, 12), 5, 6))


def test_outputs_that_are_not_finite_are_refused():
    module = sam()
    module.proj.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity"):
        rewrite(module, token_inputs())


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="does not run"):
        rewrite(sam(), (torch.randn(1, 30, 12), 5, 7))


def network_where_every_rule_fires():
    return smt(layer_scale=True), RewriteOptions(
        heads="merged",
        aggregation="dense",
        projections="joined",
        linear="conv",
        anchors="identity",
    )


def test_every_rule_fires_there():
    module, options = network_where_every_rule_fires()
    assert list(rewrite(module, (images(),), options)[1].fired) == [r.name for r in PIPELINE]


@pytest.mark.parametrize("name", [rule.name for rule in PIPELINE])
def test_a_broken_rule_is_caught_and_named(name, monkeypatch):
    module, options = network_where_every_rule_fires()

    def broken(rule):
        def perturbed(target, options):
            result = rule.rewrite(target, options)
            result.register_forward_hook(lambda _m, _x, y: y * (1 + 1e-6))
            return result

        return dataclasses.replace(rule, rewrite=perturbed)

    rules = [broken(rule) if rule.name == name else rule for rule in PIPELINE]
    monkeypatch.setattr(pipeline, "PIPELINE", rules)
    with pytest.raises(RewriteError, match=f"rule {name} changed what the module computes"):
        rewrite(module, (images(),), options)


@pytest.mark.parametrize("field", RewriteOptions.__struct_fields__)
def test_an_unknown_form_is_no_default(field):
    with pytest.raises(ValueError, match=f"{field} is 'cnv', expected one of"):
        RewriteOptions(**{field: "cnv"})
