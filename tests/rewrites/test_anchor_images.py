import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from rule_checks import images, smt

from sam_deploy.lowering import onnx_from_module
from sam_deploy.models import create_model
from sam_deploy.rewrites import RewriteOptions, rewrite


def test_the_same_function():
    image = images()
    module, report = rewrite(smt(), (image,), RewriteOptions(anchors="identity"))
    assert report.fired["anchor_images"]
    assert not [refusal for rule in report.rules for refusal in rule.refused]
    torch.testing.assert_close(module(image), smt().eval()(image), atol=1e-5, rtol=1e-5)


def test_only_when_asked():
    _, report = rewrite(smt(), (images(),), RewriteOptions())
    assert "anchor_images" not in report.fired


@pytest.mark.parametrize("linear", ["matmul", "gemm"])
def test_linear_maps_on_tokens_read_no_image(linear):
    with pytest.raises(ValueError, match="needs linear = 'conv'"):
        RewriteOptions(anchors="identity", linear=linear)


def transposes_run(options, folder):
    """How many ONNX Runtime is left with once it has optimized the graph for this CPU."""
    image = torch.randn(1, 3, 64, 64)
    module, _ = rewrite(create_model("smt_t"), (image,), options)
    graph = onnx_from_module(module, (image,), input_names=["input"], output_names=["logits"])
    ir.save(graph, folder / "form.onnx")
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(folder / "optimized.onnx")
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "form.onnx", settings)
    optimized = onnx.load(folder / "optimized.onnx")
    return sum(node.op_type == "Transpose" for node in optimized.graph.node)


@pytest.mark.slow
def test_images_stay_in_blocks(tmp_path):
    with_anchors = transposes_run(RewriteOptions(anchors="identity"), tmp_path)
    assert with_anchors < transposes_run(RewriteOptions(), tmp_path) / 2
