"""Names that come out of a file, made fit for a message: few, short and printable."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_LISTED = 5
_LONGEST = 120


def listed(names: Collection[object]) -> str:
    """The first five of `names`."""
    return ", ".join(map(shown, islice(names, _LISTED))) + (", ..." if len(names) > _LISTED else "")


def shown(name: object) -> str:
    """A name on one line and without control characters; of other things only what they are.

    A file may nest its keys so that to print one would never end.
    """
    plain = isinstance(name, str | int)
    text = str(name) if plain else f"a {getattr(name, 'name', type(name).__name__)}"
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return text if text.isprintable() else text.encode("unicode_escape").decode()
