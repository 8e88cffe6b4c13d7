"""What people and CI servers see of a verification, read back by readers that are not ours."""

import re
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings
from junitparser import Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt
from results import EXAMPLES, HOSTILE, failing, hostile, passing, results, with_layers

from sam_deploy.verification.pages import html_page, junit_xml, markdown
from sam_deploy.verification.pages._text import fit

VOID = {"meta", "link", "img", "br"}
every_example = pytest.mark.parametrize("made", EXAMPLES.values(), ids=EXAMPLES)
arbitrary = settings(deadline=None, max_examples=30)


def on_a_line(text):
    return " ".join(fit(text).replace("\N{WORD JOINER}", "").split())


# JUnit


def cases(result):
    return [(s, c) for s in JUnitXml.fromstring(junit_xml(result).encode()) for c in s]


def outcomes(result, kind):
    return [o for _, case in cases(result) for o in case.result if isinstance(o, kind)]


def agrees(result):
    read = JUnitXml.fromstring(junit_xml(result).encode())
    told = (read.tests, read.failures, read.skipped, read.errors)
    read.update_statistics()
    assert told == (read.tests, read.failures, read.skipped, read.errors)
    assert len(list(read)) == len(result.artefacts) + len(result.skipped) + 1
    assert read.skipped == len(result.skipped) + sum(c.passed is None for c in result.checks)
    assert (read.failures == 0) == result.passed
    said = "\n".join(outcome.text or "" for outcome in outcomes(result, Failure))
    for reason in result.failures:
        assert fit(reason) in said


@every_example
def test_junit_agrees_with_the_result(made):
    agrees(made())


@arbitrary
@given(results)
def test_junit_agrees_with_any_result(result):
    agrees(result)


def test_junit_names_just_the_figures_that_failed():
    found = {(s.name, c.name) for s, c in cases(failing()) if not c.is_passed and c.result}
    plan, rtx = "model.tensorrt.plan on tensorrt", "model.tensorrt-rtx.plan on tensorrt-rtx"
    assert found == {
        (plan, "logits: relative RMS"),
        (plan, "logits: cosine"),
        (plan, "accuracy: top-1 drop"),
        (plan, "batch of 8: worst slot"),
        (plan, "batch of 8: other neighbours"),
        (rtx, "comparison"),
        ("checks", "calibration"),
        ("checks", "nodes"),
    }


def test_junit_has_a_case_for_every_figure_and_check():
    found = [(s.name, c.name) for s, c in cases(passing())]
    assert len(found) == len(set(found)) == 1 + 4 + 2 + 4 + 1 + 4
    reasons = [outcome.message for outcome in outcomes(passing(), Skipped)]
    assert "no NVIDIA GPU: the plan is for compute capability 8.9" in reasons


# Markdown


def tokens(result):
    return MarkdownIt("commonmark").enable("table").parse(markdown(result))


def shown(token):
    """The text that a reader sees, with nothing in it but text and what is bold."""
    kinds = {child.type for child in token.children}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"}, token.content
    return "".join(child.content for child in token.children)


def well_formed(result):
    text = markdown(result)
    lines, read = text.split("\n"), tokens(result)
    assert not [token for token in read if token.type.startswith(("html", "code_block"))]
    assert sum(token.type == "heading_open" for token in read) == 1
    for token in read:
        if token.type == "table_open":
            rows = lines[token.map[0] : token.map[1]]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    seen = [on_a_line(shown(token)) for token in read if token.type == "inline"]
    for said in (*result.failures, *result.notes, *(s.reason for s in result.skipped)):
        assert on_a_line(said) in seen or not on_a_line(said)
    return seen


@every_example
def test_markdown_shows_what_is_said_and_nothing_else(made):
    result = made()
    verdict, summary, *_ = well_formed(result)
    name = on_a_line(result.name)
    assert verdict == f"Parity of {name}: {'passed' if result.passed else 'FAILED'}"
    assert "passed" in summary or summary.startswith("no artefact")


@arbitrary
@given(results)
def test_markdown_of_any_result_is_well_formed(result):
    well_formed(result)


def test_markdown_figures_stand_beside_their_limits():
    text = markdown(failing())
    assert "**4.10e-02** (≤ 0.003)" in text
    assert "1.20e-03 (≤ 0.01)" in text
    assert "| **2.10** (≤ 0.2) | 0.70 to 3.50 |" in text
    assert '```toml\n[[islands]]\nmatch = "block1.2.attn"' in text


def test_code_in_markdown_ends_at_its_own_fence():
    block = "[quantization]\n````\n# heading\n```\n"
    result = with_layers()
    suggestion = msgspec.structs.replace(result.layers.suggestions[0], lines=block)
    layers = msgspec.structs.replace(result.layers, suggestions=[suggestion] * 5)
    read = tokens(msgspec.structs.replace(result, layers=layers))
    assert [token.content for token in read if token.type == "fence"] == [block] * 3
    assert "2 suggestions more on the page." in [token.content for token in read]


# HTML


class Page(HTMLParser):
    """Tags, attributes and text; every tag is closed where it should be."""

    def __init__(self, result):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.source = html_page(result)
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def needs_nothing(page):
    assert not re.search(r"https?:|//", re.sub(r"base64,[\w+/=]+", "", page.source))
    assert "script" not in page.tags
    ids = {value for _, name, value in page.attributes if name == "id"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"style", "srcset", "action", "xlink:href"}
        if name in {"src", "href"}:
            assert value.startswith("data:") or (value[:1] == "#" and value[1:] in ids)


@every_example
def test_the_page_asks_for_nothing_else(made):
    needs_nothing(Page(made()))


@arbitrary
@given(results)
def test_the_page_of_any_result_asks_for_nothing_else(result):
    page = Page(result)
    needs_nothing(page)
    for reason in result.failures:
        assert fit(reason) in page.text


def test_hostile_text_is_shown_and_never_becomes_a_tag():
    page = Page(hostile())
    known = {tag for made in (failing, with_layers) for tag in Page(made()).tags}
    assert set(page.tags) <= known - {"img"}
    for text in HOSTILE:
        assert page.text.count(fit(text)) >= 10


def test_what_is_wrong_comes_first_and_what_did_not_run_is_told():
    text = Page(failing()).text
    places = [
        text.index(words)
        for words in (
            "FAILED, 2 not run",
            "nodes: 431 ONNX nodes",
            "no NVIDIA GPU",
            "the calibration samples are not here",
            "files are as the manifest says",
        )
    ]
    assert places == sorted(places)


def test_every_picture_and_plot_is_there():
    page = Page(passing())
    assert page.tags.count("img") == 2
    assert len([c for c in page.attributes if c[1:] == ("class", "bin")]) == 10
    assert "1 sample: an error of 1.8e-02 to 3.2e-02" in page.text
    assert "slot 63: 8.00e-04" in page.text


def test_without_layers_the_page_says_how_to_get_them():
    assert "sam-parity --layers" in Page(passing()).text


def test_every_module_is_in_the_curve():
    page = Page(with_layers())
    assert len([c for c in page.attributes if c[1:] == ("class", "dot")]) == 249 + 2
    assert len([c for c in page.attributes if c[1:] == ("class", "dot lost")]) == 1
    assert "The error jumps at block2.25.attn." in page.text
    assert 'match = "block2.25.attn"' in page.text
    assert "block1.0.norm1, block1.1.norm1" in page.text
    assert "2.20 times as fast as eager PyTorch" in page.text
