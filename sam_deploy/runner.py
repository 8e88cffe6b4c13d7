"""What runs an artefact: every backend looks like this, and so does whatever wraps one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
Arrays = dict[str, Array]
"""Arrays by the name of an input or output."""


class Runner(Protocol):
    """A backend with an artefact in it."""

    @property
    def backend(self) -> str:
        """What runs it, for reports."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """One inference: arrays by input name to arrays by output name."""
        ...
