"""The page at /, in a real browser."""

import shutil

import pytest
from serve_process import serving

import sam_deploy
from sam_deploy.synthetic import synthetic_images

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = [
    pytest.mark.export,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="Chromium is not installed"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def text(browser, name):
    return browser.find_element(By.ID, name).text


def test_an_image_is_classified_and_what_is_none_is_told(tiny_bundle, browser, tmp_path):
    image = tmp_path / "cat.png"
    next(iter(synthetic_images(1))).save(image)
    (tmp_path / "no.png").write_bytes(b"no image")
    with serving(tiny_bundle) as server:
        browser.get(server.url)
        file = browser.find_element(By.ID, "file")
        file.send_keys(str(image))
        WebDriverWait(browser, 20).until(lambda _: "ms" in text(browser, "told"))
        (expected,) = sam_deploy.load(tiny_bundle).classify(image)
        rows = [row.text for row in browser.find_elements(By.CSS_SELECTOR, "#classes tr")]
        assert [row.rsplit(" ", 2)[0] for row in rows] == [p.name for p in expected]
        assert abs(float(rows[0].split()[-2]) - 100 * expected[0].score) < 0.1
        told = text(browser, "told")
        assert "model.onnx on onnxruntime CPUExecutionProvider, version 1" in told
        assert browser.find_element(By.ID, "shown").size["height"] > 10
        assert [e for e in browser.get_log("browser") if "favicon" not in e["message"]] == []
        file.send_keys(str(tmp_path / "no.png"))
        WebDriverWait(browser, 20).until(lambda _: "is no image" in text(browser, "error"))
        assert browser.find_elements(By.CSS_SELECTOR, "#classes tr") == []


def test_a_token_is_asked_for(tiny_bundle, browser, tmp_path):
    image = tmp_path / "cat.png"
    next(iter(synthetic_images(1))).save(image)
    with serving(tiny_bundle, env={"SAM_SERVE_TOKEN": "s3cret"}) as server:
        browser.get(server.url)
        token = browser.find_element(By.ID, "token")
        WebDriverWait(browser, 20).until(lambda _: token.is_displayed())
        assert "bearer token" in text(browser, "error")
        token.send_keys("s3cret\t")
        WebDriverWait(browser, 20).until(lambda _: text(browser, "error") == "")
        browser.find_element(By.ID, "file").send_keys(str(image))
        WebDriverWait(browser, 20).until(lambda _: "ms" in text(browser, "told"))
