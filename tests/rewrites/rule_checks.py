"""What the tests of single rules share: apply them in float64 and hold the result."""

from dataclasses import dataclass

import official_style
import torch
from conftest import TINY, golden
from torch import nn

from sam_deploy.architecture import Architecture
from sam_deploy.rewrite_options import RewriteOptions
from sam_deploy.rewrites._probe import worst_difference
from sam_deploy.rewrites._rule import RuleLog, apply_rule
from sam_deploy.rewrites._run import float64_copy, run, tensors
from sam_deploy.rewrites.pipeline import PIPELINE

ARCHITECTURE = Architecture(**{k: tuple(v) for k, v in TINY.items()})


@dataclass
class Applied:
    """The module before and after the last of some rules, and that rule's log."""

    before: nn.Module
    after: nn.Module
    log: RuleLog

    def agrees(self, *inputs):
        """Whether both compute the same in float64."""
        inputs = tuple(x.double() if isinstance(x, torch.Tensor) else x for x in inputs)
        outputs = [tensors(run(m, inputs).outputs) for m in (self.after, self.before)]
        return worst_difference(*outputs) < 1e-10

    @property
    def reasons(self):
        return dict(self.log.refused)


def apply_up_to(name, module, only=None, **options):
    """Apply the rules `only` (all of PIPELINE if None) before rule `name`, then that rule."""
    before = float64_copy(module)
    after, log = float64_copy(module), None
    for rule in PIPELINE:
        if rule.name == name or only is None or rule.name in only:
            after, log = apply_rule(after, rule, RewriteOptions(**options))
        if rule.name == name:
            return Applied(before, after, log)
    raise AssertionError(name)


def sam(dim=12, heads=3, **options):
    return golden(official_style.PastedSAM(dim, heads, **options))


def attention(dim=12, heads=3, bias=True):
    return golden(official_style.Attention(dim, -1, heads, 0, bias=bias))


def mlp(dim=6, hidden=10):
    return golden(official_style.Mlp(dim, hidden))


def block(layer_scale=False, dim=12):
    attn = official_style.Attention(dim, 3, -1, 1)
    return golden(official_style.Block(attn, 2 * dim, layer_scale))


def smt(**options):
    return golden(official_style.SMT(ARCHITECTURE, num_classes=5, **options))


def seeded(*shape):
    """Standard normal, the same in every run: a bound on float32 must not depend on the draw."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def token_inputs(dim=12, height=5, width=6):
    return seeded(2, height * width, dim), height, width


def images(height=33, width=50):
    return seeded(2, 3, height, width)


def count(module, kind):
    return sum(isinstance(m, kind) for m in module.modules())
