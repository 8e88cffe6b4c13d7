"""How fast a model's bundles are on this CPU beside everything else, and what an export takes.

    python benchmarks/bars.py MODEL [--tune]

Exports MODEL at 224 with random weights in FP32, in INT8 for CPUs, and in FP16 with a tolerance
that allows OpenVINO to compute in BF16 (with `--tune` in the forms that are fastest here), and runs
`sam-bench` on them. Beside it the wall time of `sam-export --fp16` and of PyTorch's own dynamo
export of the untouched model, a process each; and what the machine does at most, measured when the
race is over. The result goes to benchmarks/results/bench-MODEL-<environment>.json. From ten minutes
(smt_t) to an hour (smt_l) on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import msgspec
from _peaks import asked, peaks
from _spent import script, spent

from sam_deploy.bundle import MODEL
from sam_deploy.cpu_info import machine

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DYNAMO = """
import sys
from pathlib import Path
from sam_deploy.bench.peers import export_dynamo
from sam_deploy.recipe import recipe_from_dict
from sam_deploy.reference import subject_from_recipe
data = {"model": sys.argv[1], "image_size": [224, 224]}
export_dynamo(subject_from_recipe(recipe_from_dict(data, "a benchmark")), Path(sys.argv[2]))
"""
BF16 = """
model = "{model}"
image_size = [224, 224]
precision = "fp16"

[tolerances]
relative_rms = 0.02
"""
ROUNDS = 11


def environment() -> str:
    """What figures of this machine are filed under: x86-avx2-2core."""
    found = machine()
    newest = (found["vectors"].split() or ["plain"])[-1]
    return f"{platform.machine().replace('x86_64', 'x86')}-{newest}-{found['cores']}core"


def main() -> int:
    """Write the result; see the top."""
    parser = argparse.ArgumentParser(description="a model's speed here beside everything else")
    parser.add_argument("model")
    parser.add_argument("--tune", action="store_true")
    arguments = parser.parse_args()
    model = arguments.model
    with tempfile.TemporaryDirectory() as scratch:
        out, bundles = Path(scratch), []
        recipe = out / "bf16.toml"
        recipe.write_text(BF16.format(model=model))
        export = [script("sam-export"), "--engine", "none", "--out", str(out)]
        int8 = ["--int8", "--target", "cpu", "--calibration", "synthetic"]
        tuned = ["--tune"] if arguments.tune else []
        for label, what in {
            "fp32": ["--model", model],
            "int8-cpu": ["--model", model, *int8],
            "bf16": [str(recipe)],
        }.items():
            spent([*export, *what, *tuned, "--name", f"{model}-{label}-224"])
            bundles.append(str(out / f"{model}-{label}-224"))
        ours = spent([*export, "--model", model, "--fp16"])
        dynamo = spent([sys.executable, "-c", DYNAMO, model, str(out / "dynamo.onnx")])
        bench = [script("sam-bench"), *bundles, "--batch", "1", "8", "--rounds", str(ROUNDS)]
        found = spent([*bench, "--json"], may_fail=True).json  # it says who disagrees
        found["asked"] = asked(out / f"{model}-fp32-224" / MODEL)
    found["peaks"] = peaks()
    found["command"] = " ".join(["python", "benchmarks/bars.py", *sys.argv[1:]])
    found["export"] = {
        "sam-export --fp16": round(ours.seconds, 1),
        "dynamo alone": round(dynamo.seconds, 1),
    }
    label = f"{model}-tuned" if arguments.tune else model
    path = RESULTS / f"bench-{label}-{environment()}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
