"""The samples that an artefact is furthest from PyTorch on: what it saw, and what each thought."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import Content, element
from sam_deploy.verification.pages._svg import bar
from sam_deploy.verification.result import Guess, WorstSample

_PNG_WIDTH = slice(16, 20)
_FIRST = 4
_SMALL_PX = 100  # narrower thumbnails are enlarged, pixel by pixel


def worst_samples(worst: Sequence[WorstSample]) -> Iterator[Element]:
    """A card for each, as they are listed; the later ones are folded."""
    yield element("div", *map(_card, worst[:_FIRST]), class_="cards")
    if more := worst[_FIRST:]:
        summary = element("summary", f"{len(more)} more")
        yield element("details", summary, element("div", *map(_card, more), class_="cards"))


def _card(sample: WorstSample) -> Element:
    flipped = flips(sample)
    facts: list[Content] = [f"error {sample.error:.2e}"]
    if sample.label is not None:
        facts += [", label ", element("b", sample.label)]
    if flipped:
        facts += [" ", element("b", "flipped", class_="mark flip")]
    guesses = None
    if sample.reference or sample.artefact:
        guesses = element(
            "div",
            _guesses("PyTorch", sample.reference, sample.label, flipped=False),
            _guesses("artefact", sample.artefact, sample.label, flipped=flipped),
            class_="guesses",
        )
    words = element(
        "div", element("h4", sample.sample), element("p", *facts), guesses, class_="words"
    )
    kind = "card flipped" if flipped else "card"
    return element("article", _thumbnail(sample), words, class_=kind)


def flips(sample: WorstSample) -> bool:
    """Whether the first classes differ; where a side has none there is nothing to compare."""
    return bool(sample.artefact) and sample.flipped


def _thumbnail(sample: WorstSample) -> Element | None:
    png = sample.thumbnail
    if png is None:
        return None
    small = int.from_bytes(png[_PNG_WIDTH], "big") < _SMALL_PX
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return element("img", class_="small" if small else None, alt=sample.sample, src=source)


def _guesses(side: str, guesses: Sequence[Guess], label: str | None, *, flipped: bool) -> Element:
    rows = [
        _guess(guess, right=guess.name == label, wrong=flipped and place == 0)
        for place, guess in enumerate(guesses)
    ]
    return element("table", element("caption", side), element("tbody", *rows))


def _guess(guess: Guess, *, right: bool, wrong: bool) -> Element:
    name: Content = guess.name or f"class {guess.class_index}"
    return element(
        "tr",
        element("td", element("b", name) if right else name, class_="flip" if wrong else None),
        element("td", f"{guess.score:.1%}", class_="n"),
        element("td", bar(guess.score, kind="flip" if wrong else ""), class_="plot"),
    )
