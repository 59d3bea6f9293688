"""The table and the page of suggested images."""

from __future__ import annotations

import csv
from pathlib import Path

from regraft.suggestion.outputs import write_suggestions
from regraft.suggestion.ranking import SuggestedImage, Suggestions
from tests.reviewable_run import noise


def test_the_table_and_the_page_show_all_images(tmp_path: Path) -> None:
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
