"""Commands of ours run in a process of their own, and what they took."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from sam_deploy.synthetic import synthetic_images


class Spent(NamedTuple):
    """What a command took from start to end, the most memory it held, and what it printed."""

    seconds: float
    peak_bytes: int
    said: str

    @property
    def json(self) -> Any:
        """What it printed, of a command with --json."""
        return json.loads(self.said)


def script(name: str) -> str:
    """The path of a command of this environment."""
    return str(Path(sys.executable).parent / name)


def spent(command: list[str], *, may_fail: bool = False) -> Spent:
    """Run `command`; a check that fails (exit 1) ends everything unless it `may_fail`."""
    with tempfile.TemporaryFile() as printed:
        actions = [(os.POSIX_SPAWN_DUP2, printed.fileno(), 1)]
        begun = time.perf_counter()
        child = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - begun
        code = os.waitstatus_to_exitcode(status)
        if code not in ((0, 1) if may_fail else (0,)):
            raise SystemExit(f"{' '.join(command)} failed with {code}")
        printed.seek(0)
        said = printed.read().decode()
    return Spent(seconds, usage.ru_maxrss * 1024, said)  # Linux counts in KiB


def write_images(folder: Path, count: int) -> str:
    """`count` made-up images in `folder`, other than those that parity takes."""
    folder.mkdir()
    for index, image in enumerate(synthetic_images(count, seed=1)):
        image.save(folder / f"{index:04}.png")
    return str(folder)
