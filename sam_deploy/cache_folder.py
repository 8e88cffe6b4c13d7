"""Where what can be made again is kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """SAM_DEPLOY_CACHE, else sam-deploy in XDG_CACHE_HOME, else in ~/.cache; it may not exist."""
    own = os.environ.get("SAM_DEPLOY_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sam-deploy"


def keep(path: Path, content: bytes) -> None:
    """Write `content` to `path` in a folder of the user's own: whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(partial).replace(path)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise
