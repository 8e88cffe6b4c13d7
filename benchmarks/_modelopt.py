"""Quantize an ONNX file with ModelOpt, in an environment of its own that lacks sam-deploy.

    python _modelopt.py JOB.json

The job: `onnx`, `calibration` (.npz), `out`, and `options`, the arguments of ModelOpt's `quantize`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from modelopt.onnx.quantization import quantize

job = json.loads(Path(sys.argv[1]).read_text())
data = np.load(job["calibration"])
quantize(
    job["onnx"],
    calibration_data={name: data[name] for name in data.files},
    calibration_eps=["cpu"],
    output_path=job["out"],
    log_level="ERROR",
    **job["options"],
)
