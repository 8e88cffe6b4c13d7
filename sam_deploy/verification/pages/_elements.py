"""Elements of HTML, SVG and XML. They are made as a tree and never as text, so that nothing from
outside can become a tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal
from xml.etree.ElementTree import Element, tostring

from sam_deploy.verification.pages._text import fit

Content = Element | str | None


def element(tag: str, *content: Content, **attributes: str | float | None) -> Element:
    """An element with text and elements in it; what is None is left out.

    Attributes are spelled as Python takes them: `class_`, `text_anchor`.
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            made.set(name.rstrip("_").replace("_", "-"), fit(shown))
    for part in content:
        if isinstance(part, str):
            _add_text(made, fit(part))
        elif part is not None:
            made.append(part)
    return made


def table(columns: Sequence[str], rows: Iterable[Sequence[Content]], kind: str = "") -> Element:
    """A table; a column whose name begins with '#' holds figures, which are set to the right."""
    classes = ["n" if name.startswith("#") else None for name in columns]
    names = [name.removeprefix("#") for name in columns]
    head = [element("th", n, class_=c, scope="col") for n, c in zip(names, classes, strict=True)]
    body = [
        element(
            "tr",
            *(
                element("td", cell, class_=c, data_column=name or None)
                for cell, c, name in zip(row, classes, names, strict=True)
            ),
        )
        for row in rows
    ]
    return element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_=kind or None,
    )


def written(made: Element, method: Literal["xml", "html"]) -> str:
    """The element as text."""
    return tostring(made, encoding="unicode", method=method)


def _add_text(made: Element, text: str) -> None:
    if len(made):
        made[-1].tail = (made[-1].tail or "") + text
    else:
        made.text = (made.text or "") + text
