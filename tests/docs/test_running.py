"""Blocks that are marked to run do what their page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks_of, pages
from tests.docs.running import difference, reading, run_blocks


def marked(marker: str) -> list[Path]:
    return [page for page in pages() if any(b.marker == marker for b in blocks_of(page))]


@pytest.mark.parametrize("page", marked("run"), ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page: Path, desk: Path) -> None:
    with reading(desk) as reader:
        differences = run_blocks(reader, blocks_of(page), "run")
    assert not differences, "\n".join(differences)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_tutorial_does_what_it_shows(desk: Path) -> None:
    parts = sorted(page for page in marked("run long") if page.parent.name == "tutorial")
    blocks = [block for page in parts for block in blocks_of(page)]
    with reading(desk) as reader:
        differences = run_blocks(reader, blocks, "run long")
    assert not differences, "\n".join(differences)


BLOCK = Block("page.md", 1, "console", "", "run")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("accuracy 0.97", "accuracy   0.9312\n"),
        ("a\n...\nd", "a\nb\nc\nd"),
        ("a\n...\nd", "a\nd"),
        ("report  .../report.html", "report  /tmp/x/report.html"),
        ("| a | 5 |", "| a |  5.25 |"),
        ("off by 4e-9", "off by 1.5e-08"),
    ],
)
def test_numbers_spaces_and_dots_match_others(shown: str, printed: str) -> None:
    assert difference(BLOCK, shown, printed) == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("accepted", "rejected"), ("a\nb", "a"), ("a", "a\nb"), ("block4", "block5"), ("", "a")],
)
def test_other_words_do_not(shown: str, printed: str) -> None:
    assert len(difference(BLOCK, shown, printed)) == 1
