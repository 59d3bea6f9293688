"""The report in a real browser: its parts are drawn and fit the screen."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from components.evaluate.report.report import render
from regraft.cli.screenshot import capture_page, run_chromium
from regraft_core.runtime.errors import InputError

# A frame as wide as a phone, because a window of Chromium is never narrower than 500 px. The script
# reads the width and the contents of the page in it.
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" style="border:0"
 width="{width}" height="2000" srcdoc="{page}"></iframe><script>
onload = () => {{
  const inside = document.getElementById("page").contentDocument, root = inside.documentElement;
  const drawn = [...inside.querySelectorAll("svg.chart, .gallery img")]
    .filter(e => !e.closest("details") && e.getBoundingClientRect().width > 0).length;
  const images = [...inside.images].filter(i => i.naturalWidth > 0).length;
  document.title = JSON.stringify([root.scrollWidth, drawn, images,
    inside.getElementById("verdict").innerText]);
}};</script></body>"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_shows_its_parts_and_fits_the_screen(report_of, tmp_path, width) -> None:
    page = render(report_of(min_class_recall=0.1))
    framed = page.replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, page=framed))
    shown = run_chromium(tmp_path / "frame.html", "--dump-dom", "--window-size=1400,2100",
                         "--virtual-time-budget=5000")  # fmt: skip
    title = re.search(r"<title>(\[.*?\])</title>", shown)
    assert title, shown[-2000:]
    scroll_width, drawn, images, verdict = json.loads(html.unescape(title[1]))
    assert scroll_width <= width
    # Of ten classes: an interval and, on a desktop, a chart per class, in addition to the other
    # charts and twelve images in six pairs.
    assert drawn >= 20 + (10 if width > 640 else 0)
    assert (images, verdict) == (12, "Accepted")


def color_of(page: Path, target: Path, *, dark: bool) -> tuple[int, ...]:
    capture_page(page, target, width_px=800, height_px=600, dark=dark)
    with Image.open(target) as image:
        assert image.size == (800, 600)
        return image.convert("RGB").getpixel((4, 300))


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
