"""Models by name."""

from __future__ import annotations

from torch import nn

from sam_deploy import architecture
from sam_deploy.errors import InputError
from sam_deploy.models.sam import SAM
from sam_deploy.models.smt import SMT


def create_model(
    name: str, *, num_classes: int = 1000, layer_scale: bool = False, features: bool = False
) -> nn.Module:
    """A model in evaluation mode with freshly drawn weights.

    `name` is one of `list_models()`: an SMT variant, or `sam` (the SAM module at dim 256, the
    example everybody runs; other sizes through `SAM` itself). With `features` an SMT returns its
    four feature maps and has no head.

    Raises:
        InputError: unknown name (the nearest is offered), a negative class count, or an option
            that the SAM module does not have.
    """
    if name == architecture.SAM:
        if num_classes != 1000 or layer_scale or features:
            raise InputError("the SAM module has no classes, layer scale or feature maps")
        return SAM(256).eval()
    if num_classes < 0:
        raise InputError(f"num_classes is {num_classes}; expected 0 (no head) or more")
    return SMT(
        architecture.variant(name),
        num_classes=num_classes,
        layer_scale=layer_scale,
        features=features,
    ).eval()
