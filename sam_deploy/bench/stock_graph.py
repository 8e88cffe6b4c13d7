"""An ONNX file that is not a bundle's, run as other hosts run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sam_deploy.bench.contestant import Run
from sam_deploy.runner import Array, Arrays
from sam_deploy.runtime import OnnxRunner


def make_stock_graph(path: str, outputs: list[str]) -> Run:
    """The file on ONNX Runtime's CPU provider; its outputs are called `outputs`, in their order."""
    runner = OnnxRunner(Path(path), plain=True)

    def run(inputs: Mapping[str, Array]) -> Arrays:
        return dict(zip(outputs, runner.run(inputs).values(), strict=True))

    return run
