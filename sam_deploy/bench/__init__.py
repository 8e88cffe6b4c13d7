"""How fast bundles and their peers are on this machine: measured in one run, each held against the
reference before its time counts.
"""

from sam_deploy.bench.bench import bench
from sam_deploy.bench.result import BenchResult

__all__ = ["BenchResult", "bench"]
