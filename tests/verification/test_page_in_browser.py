"""The page as a real browser shows it: Debian's Chromium, driven without a window."""

import json
import os
import shutil
from itertools import combinations

import pytest
from results import EXAMPLES
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from sam_deploy.verification.pages import html_page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER) and "CI" not in os.environ,
        reason="no chromium and chromedriver here (Debian: chromium, chromium-driver)",
    ),
]
SHOWN = ("passing", "failing", "with_layers", "backbone", "nothing_ran", "hostile")
PLOTTED = ("failing", "with_layers", "hostile")
every_page = pytest.mark.parametrize("name", SHOWN)
every_width = pytest.mark.parametrize("width", [1280, 700, 400])
NUMBER = "document.querySelectorAll('svg.plot').forEach((p, n) => p.id = 'plot' + n)"

BOXES = """
return [...document.querySelectorAll(arguments[0])].map(element => {
  const box = element.getBoundingClientRect();
  return {text: element.textContent, left: box.left, right: box.right, top: box.top,
          bottom: box.bottom, width: box.width, height: box.height};
}).filter(box => box.width > 0 || arguments[1]);
"""
COLOURS = """
const style = getComputedStyle(document.body);
return [style.backgroundColor, style.color].map(c => c.match(/\\d+/g).slice(0, 3).map(Number));
"""


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no chromium, and in CI that is a failure"
    assert DRIVER, "no chromedriver, and in CI that is a failure"
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    for argument in arguments + ["--no-sandbox"] * (os.geteuid() == 0):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # A driver that is named is never looked for elsewhere, nor downloaded.
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name in SHOWN:
        (folder / f"{name}.html").write_text(html_page(EXAMPLES[name]()), encoding="utf-8")
    return folder


@pytest.fixture
def opened(browser, pages):
    """Opens the page of an example: `opened("failing", width=400, scheme="dark")`."""

    def go(name, *, width=1280, scheme="light"):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get((pages / f"{name}.html").as_uri())
        return browser

    return go


def boxes(browser, selector, *, hidden=False):
    return browser.execute_script(BOXES, selector, hidden)


def overlap(one, other):
    """Whether two boxes share more than the hair that rounding may cost."""
    wide = min(one["right"], other["right"]) - max(one["left"], other["left"])
    high = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return wide > 0.5 and high > 0.5


def luminance(colour):
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def requests(browser):
    """What the browser asked for since it was `opened`, the page itself and data: URIs aside."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if "request" in m["params"]]
    assert asked[0] == browser.current_url
    return [url for url in asked[1:] if not url.startswith("data:")]


@every_page
def test_it_shows_the_verdict_and_asks_for_nothing(opened, name):
    browser = opened(name)
    verdict = browser.find_element(By.CSS_SELECTOR, ".verdict")
    assert verdict.is_displayed()
    assert verdict.text.split(",")[0] == ("Passed" if EXAMPLES[name]().passed else "FAILED")
    assert verdict.rect["y"] + verdict.rect["height"] < 200
    assert browser.get_log("browser") == []
    assert requests(browser) == []


def test_a_page_that_asked_for_something_would_be_seen(opened, pages):
    outside = "file:///nowhere/outside.png"
    page = (pages / "passing.html").read_text(encoding="utf-8")
    page = page.replace("</main>", f'<img src="{outside}"></main>')
    (pages / "guarded.html").write_text(page, encoding="utf-8")
    (pages / "open.html").write_text(page.replace("http-equiv", "name"), encoding="utf-8")
    refused = opened("guarded").get_log("browser")
    assert "Content Security Policy" in refused[0]["message"]
    assert requests(opened("open")) == [outside]


@every_page
@every_width
def test_nothing_sticks_out_of_the_window(opened, name, width):
    browser = opened(name, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    for box in boxes(browser, "body *"):
        assert box["left"] >= -0.5, box
        assert box["right"] <= width + 0.5, box


@pytest.mark.parametrize("name", PLOTTED)
@every_width
def test_labels_of_axes_do_not_overlap(opened, name, width):
    browser = opened(name, width=width)
    browser.execute_script(NUMBER)
    for number in range(len(browser.find_elements(By.CSS_SELECTOR, "svg.plot"))):
        labels = boxes(browser, f"#plot{number} .axis")
        assert len(labels) >= 4
        caption = boxes(browser, f"figure:has(#plot{number}) figcaption")
        for one, other in combinations([*labels, *caption], 2):
            assert not overlap(one, other), (one, other)


@pytest.mark.parametrize("name", ["passing", "with_layers"])
@every_width
def test_images_and_plots_have_a_size(opened, name, width):
    browser = opened(name, width=width)
    sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert sizes == ([160, 32] if name == "passing" else [])
    for plot in boxes(browser, "svg.plot, svg.slots, svg.interval, svg.bar", hidden=True):
        assert plot["width"] >= 50, plot
        assert plot["height"] >= 5, plot


def test_many_modules_keep_many_labels(opened):
    few = len(boxes(opened("with_layers", width=400), ".axis.group"))
    assert 10 <= few < len(boxes(opened("with_layers"), ".axis.group")) == 50


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_the_readers_colours(opened, scheme, dark):
    background, text = map(luminance, opened("failing", scheme=scheme).execute_script(COLOURS))
    assert (background < 0.05) == dark
    contrast = (max(background, text) + 0.05) / (min(background, text) + 0.05)
    assert contrast > 7
