"""The report in a real browser: its parts are drawn and fit the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from components.evaluate.report.report import render
from regraft.cli.screenshot import capture_page
from regraft_core.runtime.errors import InputError
from tests.page_checks import page_problems

# The page's width, its charts and galleries that are visible, its images, and the verdict.
MEASURE = """() => {
  const root = document.documentElement;
  const drawn = [...document.querySelectorAll("svg.chart, .gallery img")]
    .filter(e => !e.closest("details") && e.getBoundingClientRect().width > 0).length;
  const images = [...document.images].filter(i => i.naturalWidth > 0).length;
  return [root.scrollWidth, drawn, images, document.getElementById("verdict").innerText];
}"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_shows_its_parts_and_fits_the_screen(
    report_of, tmp_path, browser: Browser, width
) -> None:
    (tmp_path / "report.html").write_text(render(report_of(min_class_recall=0.1)))
    page = browser.new_page(viewport={"width": width, "height": 2000})
    page.goto((tmp_path / "report.html").as_uri())
    scroll_width, drawn, images, verdict = page.evaluate(MEASURE)
    page.close()
    assert scroll_width <= width
    # Of ten classes: an interval and, on a desktop, a chart per class, in addition to the other
    # charts and twelve images in six pairs.
    assert drawn >= 20 + (10 if width > 640 else 0)
    assert (images, verdict) == (12, "Accepted")


def test_the_page_suits_all_readers_and_asks_no_other_host(
    report_of, tmp_path, browser: Browser
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(report_of(min_class_recall=0.1)))
    assert page_problems(browser, file.as_uri()) == []


def color_of(page: Path, target: Path, *, dark: bool) -> tuple[int, ...]:
    capture_page(page, target, width_px=800, height_px=600, dark=dark)
    with Image.open(target) as image:
        assert image.size == (800, 600)
        return image.convert("RGB").getpixel((4, 300))


@pytest.fixture
def chromium(browser: Browser) -> None:
    """Screenshots need Chromium or a browser made from it."""
    if browser.browser_type.name != "chromium":
        pytest.skip(f"screenshots need Chromium; tests run in {browser.browser_type.name}")


@pytest.mark.usefixtures("chromium")
def test_the_page_follows_light_and_dark(report_of, tmp_path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(report_of()))
    light = color_of(page, tmp_path / "light.png", dark=False)
    dark = color_of(page, tmp_path / "dark.png", dark=True)
    assert min(light) > 220 and max(dark) < 60


def test_without_chromium_the_error_names_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install chromium"):
        capture_page(tmp_path / "page.html", tmp_path / "page.png")
