"""The page in a real browser: its parts are there, drawn, and nothing runs out of the screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from components.evaluate.report import render

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
# A frame of a phone's width, as a window of Chromium itself is never narrower than 500 px. Its own
# script asks the page inside how wide it is and what it holds.
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" style="border:0"
 width="{width}" height="2000" srcdoc="{page}"></iframe><script>
onload = () => {{
  const inside = document.getElementById("page").contentDocument, root = inside.documentElement;
  const drawn = [...inside.querySelectorAll("svg.chart, .gallery img")]
    .filter(e => !e.closest("details") && e.getBoundingClientRect().width > 0).length;
  const pictures = [...inside.images].filter(i => i.naturalWidth > 0).length;
  document.title = JSON.stringify([root.scrollWidth, drawn, pictures,
    inside.getElementById("verdict").innerText]);
}};</script></body>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("expected Chromium to look at the report with: apt-get install chromium")
    return found


def run(chromium: str, tmp_path: Path, page: Path, *flags: str) -> str:
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_shows_its_parts_and_fits_the_screen(chromium, report_of, tmp_path, width) -> None:
    page = render(report_of(min_class_recall=0.1))
    framed = page.replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, page=framed))
    shown = run(chromium, tmp_path, tmp_path / "frame.html", "--dump-dom",
                "--window-size=1400,2100", "--virtual-time-budget=5000")  # fmt: skip
    title = re.search(r"<title>(\[.*?\])</title>", shown)
    assert title, shown[-2000:]
    scroll_width, drawn, pictures, verdict = json.loads(html.unescape(title[1]))
    assert scroll_width <= width
    # Of ten classes: an interval and a chart a class at a desktop's width, besides the other
    # charts and twelve pictures in six pairs.
    assert drawn >= 20 + (10 if width > 640 else 0)
    assert (pictures, verdict) == (12, "Accepted")


def colour_of(chromium: str, tmp_path: Path, page: Path, *flags: str) -> tuple[int, ...]:
    shot = tmp_path / "shot.png"
    run(chromium, tmp_path, page, f"--screenshot={shot}", "--window-size=800,600", *flags)
    with Image.open(shot) as picture:
        return picture.convert("RGB").getpixel((4, 300))


def test_the_page_follows_light_and_dark(chromium, report_of, tmp_path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(report_of()))
    light = colour_of(chromium, tmp_path, page, "--blink-settings=preferredColorScheme=1")
    dark = colour_of(chromium, tmp_path, page, "--blink-settings=preferredColorScheme=0")
    assert min(light) > 220 and max(dark) < 60
