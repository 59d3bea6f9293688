"""Blocks that are marked to run print what their page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.results.values import ROOT
from tests.docs.blocks import Block, blocks_of, pages_with
from tests.docs.running import Exchange, matches, reading, run_blocks
from tests.docs.updating import check

BLOCK = Block("page.md", 1, "console", "", "run")


@pytest.mark.parametrize("page", pages_with("run", "run exact"), ids=lambda page: page.stem)
def test_a_page_shows_what_its_blocks_print(
    page: Path, desk: Path, pytestconfig: pytest.Config
) -> None:
    with reading(desk) as reader:
        check(run_blocks(reader, blocks_of(page), long=False), pytestconfig)


# These guides continue with the model of the tutorial.
AFTER_THE_TUTORIAL = [ROOT / "docs/how-to" / name for name in ("monitor.md", "improve-data.md")]


@pytest.mark.long(seconds=230)
@pytest.mark.timeout(1200)
def test_the_tutorial_shows_what_its_blocks_print(desk: Path, pytestconfig: pytest.Config) -> None:
    parts = sorted(page for page in pages_with("run long") if page.parent.name == "tutorial")
    found: list[Exchange] = []
    with reading(desk) as reader:
        for page in (*parts, *AFTER_THE_TUTORIAL):
            reader.stop()  # a page starts its own server
            found += run_blocks(reader, blocks_of(page), long=True)
    check(found, pytestconfig)


@pytest.mark.long(seconds=100)
@pytest.mark.timeout(1200)
def test_the_first_pages_show_what_their_blocks_print(
    desk: Path, pytestconfig: pytest.Config
) -> None:
    """The README has commands of the page before it, so their run is not repeated."""
    for page in ("docs/getting-started.md", "README.md"):
        with reading(desk) as reader:
            check(run_blocks(reader, blocks_of(ROOT / page), long=True), pytestconfig)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("accuracy 0.97", "accuracy   0.9312\n"),
        ("a\n...\nd", "a\nb\nc\nd"),
        ("a\n...\nd", "a\nd"),
        ("report  .../report.html", "report  /tmp/x/report.html"),
        ("| a | 5 |", "| a |  5.25 |"),
        ("off by 4e-9", "off by 1.5e-08"),
        ("(9.5 s, up to 67 s left)", "(21.0 s, up to 2.5 min left)"),
    ],
)
def test_other_numbers_spaces_and_omitted_lines_match(shown: str, printed: str) -> None:
    assert matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("accepted", "rejected"), ("a\nb", "a"), ("a", "a\nb"), ("block4", "block5"), ("", "a")],
)
def test_other_words_do_not_match(shown: str, printed: str) -> None:
    assert not matches(shown, printed)


def test_exact_outputs_compare_numbers() -> None:
    assert matches("a 5 |\n...", "a  5   |\nb", exact=True)
    assert not matches("a 5", "a 6", exact=True)


def test_a_failed_command_is_a_difference() -> None:
    (message,) = Exchange(BLOCK, "regraft run", "a", "a", code=2).differences
    assert "exit code 2" in message
    assert not Exchange(
        BLOCK, "regraft run", "regraft: error: a", "regraft: error: a", 2
    ).differences
