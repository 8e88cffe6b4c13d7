"""The page on quantization, and the verdict, as people read them."""

from html.parser import HTMLParser

import pytest

from sam_deploy.exporter.quantization_page import quantization_page
from sam_deploy.manifest import Verdict
from sam_deploy.quantization import (
    CalibrationReport,
    GroupCost,
    QuantizationReport,
    QuantizedLayer,
    SearchReport,
)

VOID = {"meta", "rect"}
OPTIONAL = {"th", "td", "tr"}  # HTML lets them end by themselves


class Page(HTMLParser):
    """Reads a page: its text, its rows, and whether every other element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.tags, self.widths = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "rect":
            self.widths.append(float(dict(attributes)["width"].rstrip("%")))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        assert tag in VOID

    def handle_endtag(self, tag):
        if tag not in OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.rows and self.open[-1:] == ["table"] and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def report(costs, search=None):
    calibration = CalibrationReport(data="folder", samples=512, sha256="0" * 64, method="mse")
    layer = QuantizedLayer(name="a/Conv", kind="linear", input_range=1.0)
    return QuantizationReport(
        calibration=calibration,
        layers=[layer],
        smoothed=1,
        macs=0.75,
        sensitivity=costs,
        search=search,
    )


def cost(group, relative_rms, top1=None, kept=False):
    return GroupCost(
        group=group, layers=2, macs=0.25, relative_rms=relative_rms, top1_agreement=top1, kept=kept
    )


def test_every_group_has_a_row_and_a_bar():
    costs = [cost("block1.0.attn", 0.02, 0.97, kept=True), cost("block2", 0.005, 1.0), cost("", 0)]
    text = quantization_page("smt_t-int8-224", "int8", report(costs))
    page = Page(text)
    assert page.rows[1:] == [
        ["block1.0.attn", "2", "25.0%", "97.0%", "2.00e-02", ""],
        ["block2", "2", "25.0%", "100.0%", "5.00e-03", ""],
        ["", "2", "25.0%", "", "0.00e+00", ""],
    ]
    assert page.widths == [100.0, 25.0, 0.0]
    assert text.count('<tr class="kept">') == 1
    assert "1 layers with 75.0% of the multiply-adds in INT8, calibrated by mse on 512" in text
    assert not {"script", "link", "img"} & set(page.tags)  # it needs nothing beside it
    assert "http" not in text


def test_the_search_is_told():
    search = SearchReport(max_drop=0.5, drop=0.25, samples=400)
    text = quantization_page("x", "fp8", report([cost("a", 0.1)], search))
    assert "drops at most 0.5: it drops 0.25 on 400 samples" in text


def test_names_cannot_break_the_page():
    evil = '</td><script>alert("&")</script>{0}'
    text = quantization_page(evil, "int8", report([cost(evil, 0.1)]))
    assert "script" not in Page(text).tags
    assert Page(text).rows[1][0] == evil


@pytest.mark.parametrize(
    ("ratio", "agreement", "ship", "text"),
    [
        (
            1.4,
            0.998,
            "int8",
            "INT8: 1.40x as fast as FP16 on CUDA (H100), -0.2 points of top-1 agreement: ship INT8",
        ),
        (1.4, None, "int8", "INT8: 1.40x as fast as FP16 on CUDA (H100): ship INT8"),
        (
            0.7,
            1.0,
            "fp16",
            "INT8: 0.70x as fast as FP16 on CUDA (H100), +0.0 points of top-1 agreement: not "
            "faster here: ship FP16",
        ),
        (None, None, None, "INT8 on CUDA (H100): not measured"),
    ],
)
def test_the_verdict_in_a_line(ratio, agreement, ship, text):
    verdict = Verdict(
        target="CUDA (H100)",
        precision="int8",
        baseline="fp16",
        ratio=ratio,
        top1_agreement=agreement,
        ship=ship,
    )
    assert verdict.text == text
