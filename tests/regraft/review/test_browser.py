"""The page of a review in a real browser: keys, the saved file, and no request to elsewhere."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page

from regraft.review.page import render_page
from regraft.review.reviewed_run import ReviewedRun
from regraft.review.server import ReviewServer
from regraft_core.curation.suspects import Finding, Image, Suspect
from regraft_core.formats.fixes import Fix, read_fixes
from tests.page_checks import page_problems

HOSTILE = "</script><img src=https://attacker.example/x onerror=document.title='hacked'>"
WHEN = "2026-11-27T21:50:00Z"


def open_page(browser: Browser, address: str) -> tuple[Page, list[str]]:
    """Open a page; return it with the list of its requests and errors."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("pageerror", lambda error: seen.append(f"error {error}"))
    page.on("console", lambda message: seen.append(f"{message.type} {message.text}"))
    page.goto(address)
    return page, seen


def saved(page: Page, count: int) -> None:
    page.get_by_text(f"{count} decisions in").wait_for()


def test_a_review_by_keys_is_saved_by_the_server(
    browser: Browser, server: ReviewServer, suspects: list[Suspect], tmp_path: Path
) -> None:
    page, seen = open_page(browser, server.url)
    assert server.token not in page.url
    assert page.inner_text("#path") == suspects[0].image.path
    assert page.evaluate("document.getElementById('image').naturalWidth") > 0
    for count, key in enumerate(("Enter", "d", "K", "u"), 1):
        page.keyboard.press(key)
        saved(page, count)
    label = next(one for one in ("blue", "green", "red") if one != suspects[4].image.label)
    page.keyboard.press("r")
    page.keyboard.type(label)
    page.keyboard.press("Enter")
    saved(page, 5)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("z")
    saved(page, 4)
    ids = [one.image.sha256 for one in suspects]
    found = read_fixes(tmp_path / "fixes.csv").fixes
    assert [(found[one].action, found[one].new_label) for one in ids if one in found] == [
        ("relabel", suspects[0].better), ("drop", ""), ("keep", ""), ("relabel", label),
    ]  # fmt: skip
    assert ids[3] not in found
    page.close()
    again, _ = open_page(browser, server.url)  # the token is the same until the review ends
    assert again.inner_text("#decision") == f"relabel as {suspects[0].better}"
    again.close()
    address = f"http://127.0.0.1:{server.server_port}/"
    assert [one for one in seen if not one.startswith((address, "data:image/"))] == []


def test_a_decision_that_is_not_saved_is_not_shown_as_made(
    browser: Browser, server: ReviewServer, suspects: list[Suspect], tmp_path: Path
) -> None:
    page, _ = open_page(browser, server.url)
    page.keyboard.down("k")
    page.keyboard.down("k")  # as of a key that is held
    page.keyboard.up("k")
    saved(page, 1)
    path = tmp_path / "fixes.csv"
    before = path.read_text()
    path.write_text("changed by hand")
    page.keyboard.press("d")
    page.get_by_text("Not saved: fixes:").wait_for()
    assert page.locator("#queue .decided").count() == 1
    path.write_text(before)
    for key in ("d", "ArrowLeft", "u", "ArrowLeft", "k", "ArrowLeft", "z", "d"):
        page.keyboard.press(key)
    page.wait_for_function("saving.then(() => true)")
    found = read_fixes(path).fixes
    assert [fix.action for fix in found.values()] == ["keep", "drop"]
    assert page.locator("#queue .drop").count() == 1
    page.close()


def test_the_static_page_downloads_the_same_file(
    browser: Browser, reviewed: ReviewedRun, suspects: list[Suspect], tmp_path: Path
) -> None:
    earlier = {"0" * 64: Fix("0" * 64, "relabel", "=1+1", 'a, "b"', "'bob", WHEN)}
    hostile = Suspect(
        Image(suspects[0].image.sha256, HOSTILE, "blue"), "train", (Finding("outlier", HOSTILE),),
        (("red", 0.9),), "red", (),
    )  # fmt: skip
    file = tmp_path / "page.html"
    shown = [hostile, *suspects[1:]]
    file.write_text(render_page(reviewed, shown, 99, earlier, served=False, who="ann"))
    page, seen = open_page(browser, file.as_uri())
    assert page.inner_text("#path") == HOSTILE and page.title() == "Review of a dataset"
    page.fill("#who", "=eve")
    page.keyboard.press("Tab")
    page.click("#image")
    page.keyboard.press("Enter")
    page.keyboard.press("d")
    kept = "localStorage.getItem(storage).replace('relabel', 'drop').replace('2026', '2020')"
    page.evaluate(f"localStorage.setItem(storage, {kept})")  # the file's decision is newer
    page.reload()  # the browser keeps the decisions
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "fixes.csv")
    found = read_fixes(tmp_path / "fixes.csv").fixes
    assert found["0" * 64] == earlier["0" * 64]
    first, second = (found[one.image.sha256] for one in shown[:2])
    assert (first.action, first.old_label, first.new_label) == ("relabel", "blue", "red")
    assert (second.action, second.who) == ("drop", "=eve")
    page.close()
    assert [one for one in seen if not one.startswith((file.as_uri(), "data:", "blob:"))] == []


def test_the_page_suits_all_readers(
    browser: Browser, reviewed: ReviewedRun, suspects: list[Suspect], tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(render_page(reviewed, suspects, 99, {}, served=False))
    assert page_problems(browser, file.as_uri(), use=lambda page: page.keyboard.press("k")) == []
