"""Whether ONNX Runtime survives a graph that we did not write ourselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sam_deploy.errors import CheckFailed


def check_loads(path: Path) -> None:
    """Load the graph in a process of its own: ONNX Runtime may crash on it.

    Raises:
        CheckFailed: it does.
    """
    code = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    if done.returncode < 0:
        raise CheckFailed(
            f"ONNX Runtime crashes when it loads the exported graph (signal {-done.returncode}), "
            "and would in every service. Export in FP32, or change the layer that it trips over."
        )
