"""The table and the page of suggested images."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from regraft.suggestion.outputs import refuse_labeled, write_suggestions
from regraft.suggestion.ranking import SuggestedImage, Suggestions
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft
from tests.page_checks import page_problems
from tests.reviewable_run import noise


def test_the_table_and_the_page_show_all_images(tmp_path: Path, browser: Browser) -> None:
    file = tmp_path / "=a<b>.png"
    noise(1).save(file)
    images = [
        SuggestedImage(str(file), "ab" * 32, "=cmd", 0.5, 0.75, None),
        SuggestedImage(str(file), "cd" * 32, "<script>", 0.4, 0.9, False),
    ]
    found = Suggestions(images, 10, [("broken.png", "not an image")])
    table, page = write_suggestions(tmp_path / "out", "a model", found)
    with open(table, newline="") as opened:
        first, second = csv.DictReader(opened)
    assert (first["path"], first["label"], first["familiar"]) == (str(file), "", "")
    assert first["predicted"] == "'=cmd" and second["familiar"] == "false"
    assert (second["uncertainty"], second["sha256"]) == ("0.9000", "cd" * 32)
    text = page.read_text()
    assert text.count("<li>") == 2 and text.count('<img src="data:image/') == 2
    assert "<script" not in text and "&lt;script&gt;" in text and "1 files were refused" in text
    assert page_problems(browser, page.as_uri()) == []


def test_a_file_that_is_gone_costs_its_preview_only(tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    names = ("gone.png", "damaged.png")
    images = [SuggestedImage(str(tmp_path / one), "ab" * 32, "cat", 0.5, 0.5, True)
              for one in names]  # fmt: skip
    table, page = write_suggestions(tmp_path / "out", "a model", Suggestions(images, 2, []))
    assert table.read_text().count("\n") == 3
    assert page.read_text().count("<li>") == 2 and "<img src" not in page.read_text()


def test_labels_that_were_filled_in_are_not_overwritten(tmp_path: Path, regraft: Regraft) -> None:
    found = Suggestions([SuggestedImage("a.png", "ab" * 32, "cat", 0.5, 0.5, True)], 1, [])
    refuse_labeled(tmp_path)
    table, _ = write_suggestions(tmp_path, "a model", found)
    refuse_labeled(tmp_path)
    text = table.read_text()
    for changed in (text.replace(",,", ",dog,"), text.replace(",", ";"), "\xff", ""):
        table.write_text(changed, encoding="latin-1")
        with pytest.raises(InputError, match="expected a folder without a table that was filled"):
            refuse_labeled(tmp_path)
    ended = regraft("suggest", tmp_path / "no-model", tmp_path, "--out", tmp_path)
    assert ended.code == 2 and "filled in" in ended.err and ended.err.count("\n") == 1
