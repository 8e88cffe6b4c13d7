"""Text from files and users, made fit for every page."""

from __future__ import annotations

import re

_UNFIT = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit(text: str) -> str:
    """`text` without what XML and UTF-8 cannot carry: control characters, and the lone surrogates
    by which Python spells file names that are not UTF-8. Lines end in a newline alone.
    """
    return _UNFIT.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def counted(count: int, what: str) -> str:
    """'1 artefact', '2 artefacts'."""
    return f"{count} {what}" + ("" if count == 1 else "s")
