"""Stands for Triton's ONNX Runtime backend, which no wheel has: its models unchanged, on a CPU."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        path = folder / config["default_model_filename"]
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {
            name: np.ascontiguousarray(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
            for name in self.inputs
        }
        found = self.session.run(self.outputs, given)
        tensors = [pb_utils.Tensor(n, a) for n, a in zip(self.outputs, found, strict=True)]
        return pb_utils.InferenceResponse(tensors)
