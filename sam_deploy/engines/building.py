"""Network to plan, in a thread of its own, so that whoever waits can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from sam_deploy.engines.monitor import Phases, progress_monitor
from sam_deploy.errors import CheckFailed
from sam_deploy.progress import Advance
from sam_deploy.tensorrt_family import Member, Said

PERCENT = 100
_POLL_S = 0.1
Result = TypeVar("Result")


def interruptible(work: Callable[[Phases], Result], advance: Advance) -> Result:
    """What `work` returns; `advance` is told each of `PERCENT` steps of its phases.

    A Ctrl-C that comes while TensorRT calls back into Python, be it to log a line, is swallowed
    there. So TensorRT works in another thread and this one is interrupted at once; the build ends
    at its next step: under a second for smt_t, some seconds for the largest models.
    """
    phases = Phases()
    told = 0
    with ThreadPoolExecutor(1, "build") as pool:
        try:
            result = pool.submit(work, phases)
            while not wait([result], _POLL_S).done:
                now = int(phases.part * PERCENT)
                advance(now - told)
                told = now
        except BaseException:
            phases.cancelled.set()
            raise
    advance(PERCENT - told)
    return result.result()


def built_plan(
    builder: Any, network: Any, config: Any, member: Member, said: Said, phases: Phases
) -> Any:
    """The serialized plan (an IHostMemory).

    Raises:
        CheckFailed: the builder gives no plan; says what it complained of.
    """
    config.progress_monitor = progress_monitor(member, phases)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reasons = "\n  ".join(said.reasons())
        raise CheckFailed(f"{member.name} did not build the network:\n  {reasons}")
    return plan
