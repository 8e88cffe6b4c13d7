"""Where what can be made again is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """SAM_DEPLOY_CACHE, else sam-deploy in XDG_CACHE_HOME, else in ~/.cache; it may not exist."""
    own = os.environ.get("SAM_DEPLOY_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sam-deploy"
