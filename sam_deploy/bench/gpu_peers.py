"""The untouched PyTorch model on a GPU, as contestants: FP16, eager, compiled, by Torch-TensorRT.

Times are from arrays on the host to arrays on the host, as those of bundles: the copies count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sam_deploy.bench.contestant import Contestant, Run
from sam_deploy.bench.result import LeftOut
from sam_deploy.bundle import read_bundle
from sam_deploy.recipe import DEFAULT_TOLERANCES
from sam_deploy.reference.outputs import named_outputs
from sam_deploy.runner import Array, Arrays
from sam_deploy.verification import Asked
from sam_deploy.verification.bundle_reference import bundle_reference

Way = Literal["eager", "compiled", "cuda graphs", "torch-tensorrt"]
_NAMES: dict[Way, str] = {
    "eager": "torch eager FP16",
    "compiled": "torch.compile FP16",
    "cuda graphs": "torch.compile FP16, CUDA graphs",
    "torch-tensorrt": "Torch-TensorRT FP16",
}


def gpu_contestants(bundle: Path, asked: Asked) -> tuple[list[Contestant], list[LeftOut]]:
    """The model that `bundle` was made from on this machine's GPU; none where PyTorch sees none."""
    if not torch.cuda.is_available():
        return [], []
    ways: list[Way] = ["eager", "compiled", "cuda graphs"]
    left_out = []
    if find_spec("torch_tensorrt") is None:
        name = _NAMES["torch-tensorrt"]
        reason = "torch_tensorrt is not installed. Run: pip install torch-tensorrt"
        left_out.append(LeftOut(name=name, side="peer", reason=reason))
    else:
        ways.append("torch-tensorrt")
    return list(torch_in_fp16(bundle, asked, ways, "cuda")), left_out


def torch_in_fp16(bundle: Path, asked: Asked, ways: list[Way], device: str) -> Iterator[Contestant]:
    """The untouched model in FP16 on `device` in each of `ways`."""
    for way in ways:
        make: partial[Run] = partial(_make, str(bundle), asked, way, device)
        yield Contestant(_NAMES[way], "peer", "fp16", DEFAULT_TOLERANCES["fp16"], make)


def _make(bundle: str, asked: Asked, way: Way, device: str) -> Run:
    subject = bundle_reference(read_bundle(Path(bundle)), asked)
    module = subject.module.to(device, torch.float16)
    if way == "compiled":
        module.compile(dynamic=False)
    elif way == "cuda graphs":
        module.compile(dynamic=False, mode="reduce-overhead")
    elif way == "torch-tensorrt":
        import torch_tensorrt  # noqa: F401  registers the backend

        module.compile(dynamic=False, backend="torch_tensorrt")

    def run(inputs: Mapping[str, Array]) -> Arrays:
        given = iter(subject.input_names)
        positional = [
            _on(device, inputs[next(given)]) if isinstance(x, Tensor) else x
            for x in subject.example_inputs
        ]
        with torch.no_grad():
            return named_outputs(_on_host(module(*positional)), subject.output_names)

    return run


def _on(device: str, array: Array) -> Tensor:
    tensor = torch.from_numpy(array.copy()).to(device)
    return tensor.half() if tensor.is_floating_point() else tensor


def _on_host(outputs: object) -> object:
    """`outputs` on the host, floats as FP32: copied, as CUDA graphs write over their own."""
    return pytree.tree_map_only(
        Tensor, lambda x: (x.float() if x.is_floating_point() else x).cpu(), outputs
    )
