"""What the parsed network must be, and each way in which it may not be it."""

import numpy as np
import onnx_graphs as graphs
import pytest
import tiny_graphs
from conftest import slow
from onnx import TensorProto
from onnx_graphs import report

from sam_deploy.engines.audit import audit_network
from sam_deploy.errors import PrecisionError
from sam_deploy.manifest import IslandReport
from sam_deploy.precision import to_fp16
from sam_deploy.precision.quantize import FP8, INT8, weighted_layers
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.tensorrt_family import log_of, member

pytestmark = pytest.mark.long

CONV = "stem.conv/Conv"
ISLAND = IslandReport(match="stem", reason="a test")


def audit(path, precision):
    rtx = member("tensorrt-rtx")
    with log_of(rtx).of_one_build() as said:
        builder = rtx.trt.Builder(log_of(rtx).logger)
        typed = 1 << int(rtx.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = rtx.trt.OnnxParser(network, log_of(rtx).logger)
        assert parser.parse_from_file(str(path)), said.errors
        audit_network(network, precision)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (np.float16, report()),
        (np.float32, report("fp32", "fp32")),
        (np.float32, report("fp16", "fp32", [ISLAND])),
    ],
)
def test_what_is_as_asked_passes(path, dtype, precision):
    audit(graphs.conv(path, dtype), precision)


def test_fp32_where_fp16_was_asked(path):
    with pytest.raises(PrecisionError, match=rf"{CONV} computes in FLOAT, expected HALF") as caught:
        audit(graphs.conv(path, np.float32), report(io_dtype="fp32"))
    assert caught.value.exit_code == 1


def test_fp16_where_fp32_was_asked(path):
    with pytest.raises(PrecisionError, match=rf"{CONV} computes in HALF, expected FLOAT"):
        audit(graphs.conv(path), report("fp32"))


def test_an_island_elsewhere_does_not_help(path):
    elsewhere = IslandReport(match="ste", reason="a test")
    with pytest.raises(PrecisionError, match="computes in FLOAT"):
        audit(graphs.conv(path, np.float32), report(io_dtype="fp32", islands=[elsewhere]))


def test_ends_of_another_type(path):
    said = r"\(2 findings\):\n  x is HALF, expected FLOAT\n  y is"
    with pytest.raises(PrecisionError, match=said):
        audit(graphs.conv(path), report(io_dtype="fp32"))


LOW = [("int8", TensorProto.INT8, "INT8"), ("fp8", TensorProto.FLOAT8E4M3FN, "FP8")]


@pytest.mark.parametrize(("precision", "elem", "dtype"), LOW)
def test_quantized_as_listed(path, precision, elem, dtype):
    audit(graphs.quantized_conv(path, elem), report(precision, layers=[CONV]))
    with pytest.raises(PrecisionError, match=rf"{CONV} is quantized and is not among"):
        audit(path, report(precision, layers=[]))
    with pytest.raises(PrecisionError, match=rf"{CONV} is quantized and is not among"):
        audit(path, report())
    with pytest.raises(PrecisionError, match=rf"stem.other/Conv should be {dtype}, and no"):
        audit(path, report(precision, layers=[CONV, "stem.other/Conv"]))


@pytest.mark.parametrize(
    ("activation", "kernel", "said"),
    [(True, False, "INT8 and floats"), (False, True, "floats and INT8"), (False, False, "floats")],
)
def test_a_listed_layer_with_an_operand_in_floats(path, activation, kernel, said):
    graphs.quantized_conv(path, activation=activation, kernel=kernel)
    with pytest.raises(PrecisionError, match=rf"{CONV} takes its operands from {said}.*INT8 for"):
        audit(path, report("int8", layers=[CONV]))


def test_int8_where_fp8_was_asked(path):
    with pytest.raises(PrecisionError, match="operands from INT8 and INT8, expected FP8 for both"):
        audit(graphs.quantized_conv(path), report("fp8", layers=[CONV]))


FORMS = [
    ("classifier", RewriteOptions()),
    ("classifier", RewriteOptions(linear="matmul")),
    ("classifier", RewriteOptions(linear="gemm")),
    ("sam", RewriteOptions()),
]


@pytest.mark.parametrize("grid", [INT8, slow(FP8)], ids=["int8", "fp8"])
@pytest.mark.parametrize(("kind", "options"), FORMS, ids=["conv", "matmul", "gemm", "sam"])
def test_real_graphs_with_every_weight_quantized(path, kind, grid, options):
    model = tiny_graphs.lower(tiny_graphs.case(kind, options))
    layers = weighted_layers(model.graph)
    graphs.quantize(model.graph, layers, grid)
    to_fp16(model)
    path.write_bytes(tiny_graphs.ir.to_proto(model).SerializeToString())
    names = [layer.node.name for layer in layers]
    assert len(names) > 3
    audit(path, report(grid.name, "fp32", layers=names))
    with pytest.raises(PrecisionError, match=rf"{names[0]} is quantized and is not among"):
        audit(path, report(grid.name, "fp32", layers=names[1:]))
