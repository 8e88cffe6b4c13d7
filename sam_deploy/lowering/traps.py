"""What a static graph cannot hold, by the line of Python that it stands in."""

from __future__ import annotations

from typing import NamedTuple

from sam_deploy.reference.user_code import current_line

BRANCH = (
    "what runs depends on a tensor's value (`if tensor:`). Use torch.where, or decide it "
    "outside of forward"
)
READ = (
    "a tensor's value is read into Python (.item(), int(), .tolist(), .numpy()). Keep it a tensor"
)
COUNT = (
    "how many elements there are depends on values (nonzero, x[mask], unique); few runtimes "
    "take that. Use torch.where or a fixed number"
)
BATCH_FIXED = (
    "the batch size is compared with or made a number, so the network works at no other. Leave "
    "sizes as they come from x.shape, use -1 in reshape, or export with a fixed batch"
)


class Trap(NamedTuple):
    """Something that a static graph cannot hold, or (not `fatal`) that it holds badly."""

    line: str
    what: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.line}: {self.what}." if self.line else f"{self.what}."


class Traps:
    """Gathers them, one a line; a fatal one takes the place of another. `inside` is the file that
    runs the user's code: lines that called it are not meant.
    """

    def __init__(self, inside: str) -> None:
        self._inside = inside
        self.found: dict[str, Trap] = {}

    def add(self, what: str, *, fatal: bool = False, line: str | None = None) -> None:
        """Note `what` at `line`, by default the line of user code that runs now."""
        line = current_line(self._inside) if line is None else line
        earlier = self.found.get(line or what)
        if earlier is None or (fatal and not earlier.fatal):
            self.found[line or what] = Trap(line, what, fatal)

    @property
    def fatal(self) -> list[str]:
        """Those that no graph can hold, in words."""
        return [str(trap) for trap in self.found.values() if trap.fatal]
