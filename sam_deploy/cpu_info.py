"""Which processor this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_VECTORS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def cpu_name() -> str:
    """The processor's name."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_vectors() -> str:
    """Its instructions for many numbers at once, as far as they decide what is fast: "avx2",
    "avx2 avx512f avx512_vnni"; of processors that Linux calls alike some have more than others.
    """
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return " ".join(name for name in _VECTORS if name in flags)


def machine() -> dict[str, str]:
    """What a figure was measured on: cpu, its vectors, cores, system."""
    return {
        "cpu": cpu_name(),
        "vectors": cpu_vectors(),
        "cores": str(os.cpu_count() or 1),
        "system": platform.system().lower(),
    }
