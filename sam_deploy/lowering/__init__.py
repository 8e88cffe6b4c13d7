"""PyTorch to ONNX: the stock exporter, then names, tidying and the written spec of the graph."""

from sam_deploy.lowering.graph_spec import check_graph
from sam_deploy.lowering.onnx_from_module import OPSET, onnx_from_module
from sam_deploy.lowering.preflight import check_traps

__all__ = ["OPSET", "check_graph", "check_traps", "onnx_from_module"]
