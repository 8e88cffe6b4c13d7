"""A verdict as a mark: its word, and a colour beside it."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sam_deploy.verification.pages._elements import element
from sam_deploy.verification.pages._summary import Verdict


def mark(verdict: Verdict) -> Element:
    """The word alone says it; the colour only helps."""
    return element("span", verdict, class_=f"mark {verdict.lower().replace(' ', '-')}")
