"""How large values become is measured in FP32, and what FP16 cannot carry becomes islands."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from conftest import golden
from onnx.reference import ReferenceEvaluator

from sam_deploy.errors import PrecisionError
from sam_deploy.lowering import onnx_from_module
from sam_deploy.models import SAM
from sam_deploy.precision import (
    check_share,
    largest_in_fp16,
    largest_values,
    overflow_islands,
    write_instrumented,
)
from sam_deploy.precision.macs import multiply_adds
from sam_deploy.recipe import Island
from sam_deploy.rewrites import rewrite
from sam_deploy.runtime import OnnxRunner

SHAPE = (30, 16)
GRID = (5, 6)
PARTS = ("v", "s", "local_conv", "proj0", "proj1", "act", "proj")


def lowered(module):
    inputs = (torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)), *GRID)
    static, _ = rewrite(module, inputs)
    return onnx_from_module(static, inputs, input_names=["input"], output_names=["output"])


def measured(graph, tmp_path):
    write_instrumented(graph, tmp_path / "ranges.onnx")
    batches = [np.random.RandomState(i).standard_normal((2, *SHAPE)) for i in range(3)]
    batches = [batch.astype(np.float32) for batch in batches]
    runner = OnnxRunner(tmp_path / "ranges.onnx")
    return largest_values(runner, [{"input": batch} for batch in batches]), batches


def islands(graph, largest, *paths, **options):
    listed = [Island(match=path, reason="a test") for path in paths]
    return {i.match: i for i in overflow_islands(graph, largest, listed, **options)}


@pytest.fixture(scope="module")
def graph():
    return lowered(golden(SAM(16, 4)))


@pytest.fixture
def small(graph):
    """What every value reaches: next to nothing."""
    names = [v.name for node in graph.graph for v in node.outputs]
    return dict.fromkeys(["input", *names], 1.0)


def test_the_largest_values_are_those_of_the_reference_evaluator(tmp_path, graph):
    largest, batches = measured(graph, tmp_path)
    proto = ir.to_proto(graph)
    names = [name for name in largest if name != "input"]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    evaluator = ReferenceEvaluator(proto)
    runs = [evaluator.run(None, {"input": batch}) for batch in batches]
    for name, *values in zip(names, *runs, strict=True):
        expected = max(np.abs(value).max() for value in values)
        assert largest[name] == pytest.approx(expected, rel=1e-4), name
    assert largest["input"] == pytest.approx(max(np.abs(b).max() for b in batches), rel=1e-6)


def test_what_fits_needs_no_island(graph, small):
    assert islands(graph, small) == {}
    assert islands(graph, dict.fromkeys(small, 65504 / 4)) == {}


@pytest.mark.parametrize("reached", [16377.0, 1e9, np.inf, np.nan])
def test_a_value_beyond_a_quarter_of_the_range_makes_islands_of_its_neighbours(
    graph, small, reached
):
    found = islands(graph, small | {"v/Conv:0": reached})
    assert set(found) == {"v/Conv", "Mul"}
    assert found["Mul"].reason == f"v/Conv:0 reaches {reached:.3g}, FP16 ends at 65504"
    assert found["Mul"].largest == pytest.approx(reached, nan_ok=True)


def test_a_listed_island_is_not_listed_again(graph, small):
    assert set(islands(graph, small | {"v/Conv:0": 1e6}, "v")) == {"Mul"}


def test_of_several_reasons_the_largest_is_given(graph, small):
    found = islands(graph, small | {"v/Conv:0": 2e4, "Mul:0": 5e4, "proj1/Conv:0": 3e4})
    assert (found["v/Conv"].largest, found["Mul"].largest) == (2e4, 5e4)


@pytest.mark.parametrize(
    ("name", "found"),
    [("input", "the input input"), ("output", "the output output")],
)
def test_fp16_ends_that_would_overflow_are_an_error(graph, small, name, found):
    assert islands(graph, small | {name: 1e6})
    with pytest.raises(PrecisionError, match=rf"{found}.* reaches 1e\+06 .*without --io-dtype"):
        islands(graph, small | {name: 1e6}, io_dtype="fp16")


def test_the_largest_value_in_fp16_is_none_that_only_islands_see(graph, small):
    reached = small | {"v/Conv:0": 5e4, "input": 2.0}
    found = list(islands(graph, reached).values())
    assert largest_in_fp16(graph, reached, found).name == "input"
    assert largest_in_fp16(graph, reached, found[:1]).name == "v/Conv:0"


def test_the_part_of_islands_is_counted_and_limited(graph):
    listed = [Island(match="v", reason="a test")]
    counts = {node.name: multiply_adds(node) for node in graph.graph}
    assert counts["v/Conv"] == 16 * 16 * 30
    share = counts["v/Conv"] / sum(counts.values())
    assert check_share(graph, listed, 1.0) == pytest.approx(share)
    assert check_share(graph, [], 0.0) == 0
    with pytest.raises(PrecisionError, match=r"(?s)would stay in FP32.*v: a test.*--allow-islands"):
        check_share(graph, listed, share - 1e-6)
    assert check_share(graph, [Island(match=p, reason="") for p in PARTS], 1.0) == 1


def test_multiply_adds_are_pytorchs(graph):
    """Of a SAM as PyTorch counts them (two FLOPs each), all convolutions with zeros included."""
    from torch.utils.flop_counter import FlopCounterMode

    module = golden(SAM(16, 4))
    inputs = (torch.randn(1, *SHAPE), *GRID)
    static, _ = rewrite(module, inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        static(*inputs)
    assert sum(multiply_adds(node) for node in graph.graph) * 2 == counter.get_total_flops()


def test_nan_is_counted_as_infinite():
    assert largest_values(_Nan(), [{"input": np.zeros((1, 1), np.float32)}]) == {"x": np.inf}


@dataclasses.dataclass
class _Nan:
    backend = "a test"

    def run(self, _):
        return {"x|largest": np.float32(np.nan)}
