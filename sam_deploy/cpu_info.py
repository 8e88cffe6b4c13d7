"""Which processor this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's name."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """What a figure was measured on: cpu, cores, system."""
    return {
        "cpu": cpu_name(),
        "cores": str(os.cpu_count() or 1),
        "system": platform.system().lower(),
    }
