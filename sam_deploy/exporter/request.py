"""What is asked of an export beside the recipe: where to, on which data, and how far to look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_deploy.errors import InputError
from sam_deploy.recipe import QUANTIZED, Recipe


@dataclass(frozen=True)
class Request:
    """`force` replaces a bundle that is there. `data` is what parity is measured on, `calibration`
    are batches from Python in place of what the recipe names.

    `sensitivity` measures what each group of layers costs in INT8 or FP8; `max_drop` keeps the
    costliest in floats until the drop is within it, in points; `ship_best` exports in floats where
    INT8 or FP8 is not faster. `tune_s` is how many seconds to look for the fastest of the rewrites'
    equal forms; None takes the recipe's.
    """

    force: bool = False
    data: Path | None = None
    calibration: Iterable[Any] | None = None
    sensitivity: bool = False
    max_drop: float | None = None
    ship_best: bool = False
    tune_s: float | None = None

    def check(self, recipe: Recipe) -> None:
        """Refuse what does not go with `recipe`.

        Raises:
            InputError: something of INT8 and FP8 asked of another precision, a drop below 0, or no
                time to tune in.
        """
        asked = {
            "calibration": self.calibration is not None,
            "sensitivity": self.sensitivity,
            "a largest drop": self.max_drop is not None,
            "shipping the best": self.ship_best,
        }
        for what, given in asked.items():
            if given and recipe.precision not in QUANTIZED:
                raise InputError(
                    f"{what} belongs to precision 'int8' and 'fp8', not {recipe.precision!r}."
                )
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise InputError(f"the largest drop is {self.max_drop:g}; expected 0 to 100 points.")
        if self.tune_s is not None and not self.tune_s > 0:
            raise InputError(f"there are {self.tune_s:g} seconds to tune in; expected more than 0.")
