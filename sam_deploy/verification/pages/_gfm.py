"""Pieces of Markdown in GitHub's flavour, with text in them that means nothing there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sam_deploy.verification.pages._text import fit


def plain(text: str) -> str:
    """`text` on one line, to be shown as it is: nothing in it is Markdown, HTML or a mention."""
    line = " ".join(fit(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", line)
    line = re.sub(r"^(\d*)([-+=.)#])", r"\1\\\2", line)  # what begins a list or a heading
    return line.replace("@", "@\N{WORD JOINER}")  # nobody is notified by a file's name


def bullets(texts: Sequence[str]) -> str:
    """A list of `texts`, which are made plain."""
    return "\n".join(f"- {plain(text)}" for text in texts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are plain already; '' where there are no rows."""
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(lines: str, language: str) -> str:
    """`lines` as a block of code, behind a fence longer than any in it."""
    text = fit(lines).strip("\n")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"
