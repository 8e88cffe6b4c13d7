"""How long `import sam_deploy` takes: the median of fresh processes, beside `import numpy`.

python benchmarks/import_time.py [RUNS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

_CODE = (
    "import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
)


def import_ms(module: str, runs: int) -> float:
    """Median over `runs` processes of the time that importing `module` takes, in ms."""
    command = [sys.executable, "-c", _CODE.format(module=module)]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(runs + 1)]
    return statistics.median(times[1:]) * 1e3  # the first run fills the file cache


def main() -> None:
    """Print a line a module, the ratio to numpy last."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    modules = ("numpy", "sam_deploy", "sam_deploy.runtime")
    found = {module: import_ms(module, runs) for module in modules}
    for module, ms in found.items():
        print(f"import {module:18} {ms:6.1f} ms   {ms / found['numpy']:5.2f} x numpy")


if __name__ == "__main__":
    main()
