"""FP16 overflow, which ONNX Runtime's CPU provider hides, stops the export."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from conftest import golden
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file

from sam_deploy.errors import PrecisionError
from sam_deploy.exporter import export_recipe
from sam_deploy.lowering import onnx_from_module
from sam_deploy.models import SAM
from sam_deploy.precision import check_ranges, largest_values, to_fp16, write_instrumented
from sam_deploy.recipe import Island, recipe_from_dict
from sam_deploy.rewrites import rewrite
from sam_deploy.runtime import OnnxRunner

SHAPE = (30, 16)
GRID = (5, 6)
LARGE = 4e4  # times weights below 1 and values up to 4: only the values are beyond 65504


def doctored():
    """A SAM whose v overflows FP16, and whose proj brings it back."""
    module = golden(SAM(16, 4))
    with torch.no_grad():
        module.v.weight *= LARGE
        module.proj.weight /= LARGE
    return module


def lowered(module):
    inputs = (torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)), *GRID)
    static, _ = rewrite(module, inputs)
    return onnx_from_module(static, inputs, input_names=["input"], output_names=["output"])


def measured(graph, tmp_path):
    write_instrumented(graph, tmp_path / "ranges.onnx")
    batches = [np.random.RandomState(i).standard_normal((2, *SHAPE)) for i in range(3)]
    runner = OnnxRunner(tmp_path / "ranges.onnx")
    return largest_values(runner, "input", [b.astype(np.float32) for b in batches]), batches


def test_the_largest_values_are_those_of_the_reference_evaluator(tmp_path):
    graph = lowered(golden(SAM(16, 4)))
    largest, batches = measured(graph, tmp_path)
    proto = ir.to_proto(graph)
    names = [name for name in largest if name != "input"]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    evaluator = ReferenceEvaluator(proto)
    runs = [evaluator.run(None, {"input": b.astype(np.float32)}) for b in batches]
    for name, *values in zip(names, *runs, strict=True):
        expected = max(np.abs(value).max() for value in values)
        assert largest[name] == pytest.approx(expected, rel=1e-4), name
    assert largest["input"] == pytest.approx(max(np.abs(b).max() for b in batches), rel=1e-6)


def test_an_overflow_is_refused_and_would_have_been_one(tmp_path):
    graph = lowered(doctored())
    largest, batches = measured(graph, tmp_path)
    with pytest.raises(PrecisionError, match=r"(?s)v/Conv:0 reaches .*islands"):
        check_ranges(graph, largest, [])
    to_fp16(graph)
    evaluator = ReferenceEvaluator(ir.to_proto(graph))
    with np.errstate(all="ignore"):
        (output,) = evaluator.run(None, {"input": batches[0].astype(np.float32)})
    assert not np.isfinite(output).all()


def test_a_value_within_islands_may_be_large(tmp_path):
    graph = lowered(doctored())
    largest, _ = measured(graph, tmp_path)
    every = [Island(match=part, reason="large") for part in ("v", "s", "proj0", "proj1", "proj")]
    with pytest.raises(PrecisionError, match="v/Conv:0"):
        check_ranges(graph, largest, every)  # the Mul that reads v stands at the root: FP16
    small = dict.fromkeys(largest, 1.0) | {"input": 2.0}
    assert check_ranges(graph, small, []).name == "input"


def test_nan_is_beyond(tmp_path):
    graph = lowered(golden(SAM(16, 4)))
    largest, _ = measured(graph, tmp_path)
    with pytest.raises(PrecisionError, match="reaches inf"):
        check_ranges(graph, largest | {"v/Conv:0": np.inf}, [])


@dataclasses.dataclass
class _Nan:
    def run(self, _):
        return {"x|largest": np.float32(np.nan)}


def test_nan_is_counted_as_infinite():
    assert largest_values(_Nan(), "input", [np.zeros((1, 1), np.float32)]) == {"x": np.inf}


@pytest.mark.export
def test_the_export_fails_and_leaves_nothing(tmp_path):
    checkpoint = tmp_path / "large.safetensors"
    save_file(doctored().state_dict(), checkpoint)
    data = {"model": "sam", "image_size": [5, 6], "weights": str(checkpoint)}
    out = tmp_path / "engines"
    with pytest.raises(PrecisionError, match="v/Conv:0 reaches"):
        export_recipe(recipe_from_dict({**data, "precision": "fp16"}, "a test"), out=out)
    assert not out.exists()
    assert export_recipe(recipe_from_dict(data, "a test"), out=out).manifest.parity[0].passed
