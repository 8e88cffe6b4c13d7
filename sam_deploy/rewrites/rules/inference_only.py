"""Dropout, drop path and stored activations are gone: at inference they are identities.

    dropout_p(x) = x,  drop_path_p(x) = x      (evaluation mode)

and an activation that `forward` keeps as an attribute (SAM's `self.modulator`) is no output.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._rule import Refused, Rule


def _stored(module: nn.Module) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Tensor)]


def _drops(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) or hasattr(module, "drop_prob")


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return _drops(module)


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        raise Refused("it has a drop_prob, but also parameters or children: not a drop path")
    return nn.Identity()


RULE = Rule("inference_only", "dropout(x) = drop_path(x) = x", nn.Module, _pattern, _rewrite)


def forget_stored(root: nn.Module) -> None:
    """Drop the tensors that an earlier forward left behind as plain attributes."""
    for module in root.modules():
        for name in _stored(module):
            setattr(module, name, None)
