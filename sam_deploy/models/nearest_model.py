"""What to say of a state dict that is of no known model: of which it is nearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam_deploy import architecture as known
from sam_deploy.models._wording import listed
from sam_deploy.models.misfit import alike, misfit
from sam_deploy.models.recognise import SAM_FIT, empty_model, fit_of

if TYPE_CHECKING:
    from pathlib import Path

    from sam_deploy.models.recognise import State


def explain_misfit(path: Path, state: State) -> str:
    """Why the weights in `path` are of no known model: the nearest one, and how they differ."""
    models = {name: _expected(state, name) for name in known.list_models()}
    held = {name: _held(expected, state) for name, expected in models.items()}

    def likeness(name: str) -> float:
        return held[name] / (len(models[name]) + len(state) - held[name])

    best = max(models, key=likeness)
    if 2 * held[best] < len(state) or not state:
        return (
            f"{path} has the shapes of no known model: its {len(state)} tensors are "
            f"{listed(state)}; expected the sizes of {', '.join(models)}. Describe another "
            "architecture in a recipe"
        )
    return (
        f"{path} has the shapes of no known model. It is nearest to {best}, of whose "
        f"{len(models[best])} tensors it holds {held[best]}: {misfit(models[best], state)}. "
        f"Use a whole checkpoint of {best}, or describe another architecture in a recipe"
    )


def _expected(state: State, name: str) -> State:
    fit = SAM_FIT if name == known.SAM else fit_of(state, known.variant(name))
    return empty_model(state, fit).state_dict()


def _held(expected: State, state: State) -> int:
    return sum(name in state and alike(state[name], expected[name]) for name in expected)
