"""The page in a real browser: an image is uploaded, its label and probabilities are shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from serving.running.runner import Addresses, started_server
from tests.page_checks import page_problems
from tests.serving.raw import http_request


@pytest.fixture(scope="module")
def page_server(conformance_base: Path) -> Iterator[Addresses]:
    flags = ["--model_name=tiny", f"--model_base_path={conformance_base / 'tiny'}", "--page"]
    with started_server(flags) as addresses:
        yield addresses


def test_the_page_has_no_external_assets(page_server: Addresses) -> None:
    status, headers, body = http_request(page_server.rest, "GET", "/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"http://" not in body
    assert b"https://" not in body
    assert b'value="tiny"' in body


def test_the_page_is_off_by_default(server: Addresses) -> None:
    assert http_request(server.rest, "GET", "/")[0] == 404


def test_an_image_is_uploaded_and_classified(
    page_server: Addresses, images: list[bytes], browser: Browser, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(images[1])
    bad.write_bytes(b"no image")
    page = browser.new_page()
    script_errors: list[str] = []
    page.on("pageerror", lambda error: script_errors.append(str(error)))
    page.goto(f"http://{page_server.rest}/")
    page.set_input_files("#files", [str(good)])
    page.wait_for_selector("#results .bar")
    assert page.inner_text("#results .label").startswith("even-")
    assert page.locator("#results .bar").count() == 3
    assert "ms" in page.inner_text("#results .meta >> nth=0")
    names = page.inner_text("#results .set")
    assert names.startswith("label set: ") and "even-" in names
    assert "even-" in page.inner_text("#results .bar >> nth=0")
    page.set_input_files("#files", [str(bad)])
    page.wait_for_selector("#results .error")
    if shots := os.environ.get("PAGE_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/page.png", full_page=True)
    page.close()
    assert script_errors == []


def test_the_page_suits_all_readers(
    page_server: Addresses, images: list[bytes], browser: Browser, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(images[1])
    bad.write_bytes(b"no image")

    def upload(page: Page) -> None:
        stops = [(page.keyboard.press("Tab"), page.evaluate("document.activeElement.id"))[1]
                 for _ in range(2)]  # fmt: skip
        assert stops == ["model", "files"]
        page.set_input_files("#files", [str(bad), str(good)])
        page.wait_for_selector("#results .bar")

    assert page_problems(browser, f"http://{page_server.rest}/", use=upload) == []
