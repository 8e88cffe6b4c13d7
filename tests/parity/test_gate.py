"""Real artefacts, damaged in every way we know: each must turn the gate red and say where."""

import functools

import numpy as np
import onnx
import pytest
import tiny_graphs
import torch
from onnx import numpy_helper

from sam_deploy.errors import CheckFailed
from sam_deploy.manifest import TensorSpec
from sam_deploy.parity import Samples, measure_parity, normal_samples
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.runtime import OnnxRunner

FP32 = DEFAULT_TOLERANCES["fp32"]


def reference(kind, inputs):
    case = tiny_graphs.case(kind)
    with torch.no_grad():
        out = case.eager(torch.from_numpy(inputs["input"]), *case.example[1:])
    listed = [out] if isinstance(out, torch.Tensor) else out
    return {name: y.numpy() for name, y in zip(case.outputs, listed, strict=True)}


def specs(proto, kind):
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    sample = reference(kind, {"input": tiny_graphs.case(kind).example[0].numpy()})

    def spec(name, shape):
        first = batch.dim_param or batch.dim_value
        return TensorSpec(name=name, dtype="float32", dims=[first, *shape[1:]])

    inputs = [spec("input", tiny_graphs.case(kind).example[0].shape)]
    return inputs, [spec(name, y.shape) for name, y in sample.items()]


class Wrapped:
    """The real runner, its answer changed on the way out."""

    backend = "a test"

    def __init__(self, runner, change):
        self.runner, self.change = runner, change

    def run(self, inputs):
        return self.change(self.runner.run(inputs))


@pytest.fixture
def gate(tmp_path):
    """Judges `proto`, saved as a file and run by ONNX Runtime."""

    def judge(proto, kind="classifier", *, change=None, samples=None, batch=4, **options):
        path = tmp_path / "model.onnx"
        onnx.save(proto, path)
        inputs, outputs = specs(tiny_graphs.proto(kind, options.pop("fixed", None)), kind)
        runner = OnnxRunner(path)
        return measure_parity(
            Wrapped(runner, change) if change else runner,
            options.get("reference", functools.partial(reference, kind)),
            samples or normal_samples("input", 9, *inputs[0].dims[1:]),
            artefact="model.onnx",
            inputs=inputs,
            outputs=options.get("outputs", outputs),
            classes=options.get("classes", kind == "classifier"),
            tolerances=FP32,
            batch=batch,
            progress=options.get("progress", lambda done: None),
        )

    return judge


def weight(proto, name):
    return next(w for w in proto.graph.initializer if w.name == name)


def change_weight(proto, name, function):
    tensor = weight(proto, name)
    value = function(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return proto


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classifier", "features", "sam"])
def test_the_untouched_artefact_is_green(gate, kind):
    counted = []
    report = gate(tiny_graphs.proto(kind), kind, progress=counted.append)
    assert report.passed
    assert (report.failures, report.samples, counted) == ([], 9, [4, 4, 1])
    assert report.backend == "onnxruntime CPUExecutionProvider"
    assert [output.name for output in report.outputs] == tiny_graphs.case(kind).outputs
    for output in report.outputs:
        assert 0 < output.relative_rms < 1e-6
        assert output.top1_agreement == (1.0 if kind == "classifier" else None)


def test_a_partial_batch_of_a_fixed_artefact_is_filled_up_and_not_judged(gate):
    dynamic = gate(
        tiny_graphs.proto(), samples=normal_samples("input", 4, 3, *tiny_graphs.SIZE), batch=3
    )
    fixed = gate(
        tiny_graphs.proto(batch=3),
        fixed=3,
        batch=3,
        samples=normal_samples("input", 4, 3, *tiny_graphs.SIZE),
    )
    assert fixed.passed
    assert fixed.samples == dynamic.samples == 4
    assert fixed.data_sha256 == dynamic.data_sha256
    assert fixed.outputs[0].cosine == pytest.approx(dynamic.outputs[0].cosine)
    assert fixed.outputs[0].relative_rms < 1e-6


def one_percent(value):
    value.flat[int(np.abs(value).argmax())] *= 1.01
    return value


@pytest.mark.parametrize(
    "name",
    [
        "patch_embed1.conv.0.weight",
        "block1.0.attn.proj0.weight",
        "block3.1.attn.q.weight",
        "block4.0.mlp.fc2.weight",
        "norm4.weight",
        "head.weight",
    ],
)
def test_one_weight_off_by_one_percent_is_red(gate, name):
    report = gate(change_weight(tiny_graphs.proto(), name, one_percent))
    assert not report.passed
    assert report.failures[0].startswith("logits: relative RMS")


@pytest.mark.parametrize("name", ["patch_embed1.conv.3.bias", "block3.0.attn.v.bias", "head.bias"])
def test_a_lost_bias_is_red(gate, name):
    report = gate(change_weight(tiny_graphs.proto(), name, np.zeros_like))
    assert any(reason.startswith("logits: relative RMS") for reason in report.failures)
    assert any(reason.startswith("logits: largest error") for reason in report.failures)


def test_swapped_classes_are_red(gate):
    proto = change_weight(tiny_graphs.proto(), "head.weight", lambda w: w[::-1].copy())
    report = gate(change_weight(proto, "head.bias", lambda b: b[::-1].copy()))
    kinds = [reason.split()[1] for reason in report.failures]
    assert kinds == ["relative", "largest", "cosine", "top-1"]


def test_of_several_outputs_the_wrong_one_is_named(gate):
    proto = change_weight(tiny_graphs.proto("features"), "norm4.bias", np.zeros_like)
    report = gate(proto, "features")
    assert {reason.partition(":")[0] for reason in report.failures} == {"stage4"}


def swap(outputs):
    return {**outputs, "stage1": outputs["stage2"], "stage2": outputs["stage1"]}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (swap, r"output stage1: the artefact gives shape \(4, 16, 8, 12\), declared is \(4, 8, 16"),
        (lambda o: {k: v for k, v in o.items() if k != "stage3"}, "output stage3: missing"),
        (lambda o: {**o, "spare": o["stage1"]}, r"undeclared outputs \['spare'\]"),
        (
            lambda o: {{"stage2": "stage_2"}.get(k, k): v for k, v in o.items()},
            r"output stage2: missing; the artefact gives \['stage1', 'stage3', 'stage4', 'stage_2'",
        ),
        (
            lambda o: {**o, "stage4": o["stage4"].astype(np.float16)},
            "output stage4: float16, expected float32",
        ),
        (
            lambda o: {**o, "stage4": o["stage4"][..., :-1]},
            "output stage4: the artefact gives shape",
        ),
        (lambda o: {k: v[:-1] for k, v in o.items()}, "output stage1: the artefact gives shape"),
        (
            lambda o: {k: np.concatenate([v, v]) for k, v in o.items()},
            r"output stage1: the artefact gives shape \(8,",
        ),
    ],
    ids=[
        "swapped",
        "missing",
        "extra",
        "renamed",
        "dtype",
        "narrower",
        "short-batch",
        "long-batch",
    ],
)
def test_wrong_outputs_void_the_comparison(gate, change, found):
    with pytest.raises(CheckFailed, match=found):
        gate(tiny_graphs.proto("features"), "features", change=change)


def test_two_outputs_of_one_shape_swapped_are_red(gate):
    # Doubled outputs of one graph: only the values can tell them apart.
    both = {name: TensorSpec(name=name, dtype="float32", dims=["batch", 10]) for name in "ab"}

    def expected(x):
        (logits,) = reference("classifier", x).values()
        return {"a": logits, "b": 2 * logits + 1}

    def swapped(outputs):
        return {"b": outputs["logits"], "a": 2 * outputs["logits"] + 1}

    report = gate(
        tiny_graphs.proto(),
        change=swapped,
        reference=expected,
        outputs=list(both.values()),
    )
    assert {reason.partition(":")[0] for reason in report.failures} == {"a", "b"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_void_the_comparison(gate, value):
    def poison(w):
        w[0] = value
        return w

    proto = change_weight(tiny_graphs.proto(), "head.bias", poison)
    with pytest.raises(CheckFailed, match="output logits: the artefact holds NaN or infinity"):
        gate(proto)


def test_nan_in_the_reference_voids_the_comparison(gate):
    def poisoned(inputs):
        return {"logits": np.full((len(inputs["input"]), 10), np.nan, np.float32)}

    with pytest.raises(CheckFailed, match="output logits: the reference holds NaN"):
        gate(tiny_graphs.proto(), reference=poisoned)


def test_nan_in_one_row_of_the_last_batch_is_found(gate):
    def late(outputs):
        if len(outputs["logits"]) == 1:
            outputs["logits"][0, 3] = np.nan
        return outputs

    with pytest.raises(CheckFailed, match="output logits: the artefact holds NaN"):
        gate(tiny_graphs.proto(), change=late)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_reference_voids_the_comparison(gate, value):
    def constant(inputs):
        return {"logits": np.full((len(inputs["input"]), 10), value, np.float32)}

    with pytest.raises(CheckFailed, match="the reference's outputs are constant"):
        gate(
            tiny_graphs.proto(),
            reference=constant,
            change=lambda o: constant({"input": o["logits"]}),
        )


def test_a_reference_of_other_outputs_voids_the_comparison(gate):
    def other(inputs):
        return {"scores": np.zeros((len(inputs["input"]), 10), np.float32)}

    with pytest.raises(CheckFailed, match="output logits: the reference does not have it"):
        gate(tiny_graphs.proto(), reference=other)


def test_no_samples_void_the_comparison(gate):
    with pytest.raises(CheckFailed, match=r"model\.onnx: no samples"):
        gate(tiny_graphs.proto(), samples=Samples("folder", 9, lambda start: iter(())))


def test_an_artefact_that_ignores_its_input_is_red(gate):
    kept = []

    def frozen(outputs):
        kept.append(outputs["logits"][:1])
        return {"logits": np.repeat(kept[0], len(outputs["logits"]), axis=0)}

    assert not gate(tiny_graphs.proto(), change=frozen).passed


def test_a_single_sample_is_also_run_in_a_batch_of_three(gate):
    sizes = []

    def noting(outputs):
        sizes.append(len(outputs["logits"]))
        return outputs

    one = normal_samples("input", 1, 3, *tiny_graphs.SIZE)
    report = gate(tiny_graphs.proto(), samples=one, change=noting)
    assert (report.passed, report.samples, sizes) == (True, 1, [1, 3])

    def only_at_one(outputs):
        rows = outputs["logits"]
        return {"logits": rows if len(rows) == 1 else rows * np.float32(1.01)}

    assert not gate(tiny_graphs.proto(), samples=one, change=only_at_one).passed


def discrete(share):
    """The reference's classes, and the artefact's of which `share` are others."""

    def classes(outputs):
        found = outputs["logits"].argmax(axis=1)
        return {"classes": np.where(np.arange(len(found)) < share * len(found), 11, found)}

    return classes


@pytest.mark.parametrize(("share", "passed"), [(0, True), (0.5, False)])
def test_of_integers_the_equal_elements_are_judged(gate, share, passed):
    report = gate(
        tiny_graphs.proto(),
        change=discrete(share),
        reference=lambda x: discrete(0)(reference("classifier", x)),
        outputs=[TensorSpec(name="classes", dtype="int64", dims=["batch"])],
        classes=False,
        samples=normal_samples("input", 12, 3, *tiny_graphs.SIZE),
        batch=12,
    )
    (output,) = report.outputs
    assert output.equal_elements == pytest.approx(1 - share, abs=0.05)
    assert output.relative_rms is None
    assert report.passed == passed
    if not passed:
        assert report.failures[0].startswith("classes: equal elements 0.4")


def test_an_output_without_a_batch_is_compared_whole(gate):
    report = gate(
        tiny_graphs.proto(),
        change=lambda o: {"mean": np.full(7, 3, np.float32) * np.arange(7, dtype=np.float32)},
        reference=lambda x: {"mean": np.arange(7, dtype=np.float32) * 3},
        outputs=[TensorSpec(name="mean", dtype="float32", dims=[7])],
        classes=False,
    )
    assert report.passed
