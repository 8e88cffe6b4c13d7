"""Dropout and drop path are gone: at inference they are identities.

    dropout_p(x) = x,  drop_path_p(x) = x      (evaluation mode)

Drop paths are recognised by `drop_prob`; that they are identities is measured, not believed.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._probe import probe_images
from sam_deploy.rewrites._rule import Refused, Rule


def _pattern(module: nn.Module, _: RewriteOptions) -> bool:
    return isinstance(module, _DropoutNd) or hasattr(module, "drop_prob")


def _rewrite(module: nn.Module, _: RewriteOptions) -> nn.Module:
    if any(True for _ in module.children()) or any(True for _ in module.parameters()):
        raise Refused("it has a drop_prob, but also parameters or children: not a drop path")
    identity = nn.Identity()
    probe_images(module, identity, channels=1)
    return identity


RULE = Rule("inference_only", "dropout(x) = drop_path(x) = x", nn.Module, _pattern, _rewrite)
