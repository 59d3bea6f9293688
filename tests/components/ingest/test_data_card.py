"""The data card: one self-contained page that describes the dataset."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from components.ingest.card.data_card import CONVERSIONS, DUPLICATES
from components.ingest.crops import CLIPPED
from components.ingest.ingest import ingest
from regraft_core.formats.options.ingest import IngestOptions
from tests.page_checks import page_problems

OPTIONS = IngestOptions(processes=1, max_invalid_fraction=0.5)


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and visible text; open and closing tags must match."""

    VOID = frozenset({"meta", "img", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def test_the_card_is_self_contained_and_complete(
    tmp_path: Path,
    make_classes: Callable[..., Path],
    make_photo: Callable[..., Image.Image],
    browser: Browser,
) -> None:
    source = make_classes(tmp_path / "in", ("cat", "<script>alert(1)"), count=20)
    make_photo(0).save(source / "cat" / "again.jpg", quality=80)
    alpha = make_photo(900)
    alpha.putalpha(90)
    alpha.save(source / "cat" / "alpha.png")
    Image.new("RGB", (70, 50)).save(source / "cat" / "black.png")
    (source / "cat" / "<img src=x>.jpg").write_text("words")
    ingest([str(source)], tmp_path / "out", OPTIONS)
    text = (tmp_path / "out" / "data_card.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.urls
    assert all(url.startswith("data:image/") for url in page.urls)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    words = " ".join(page.text.split())
    for expected in (
        "<script>alert(1)", "<img src=x>.jpg", "not-an-image", "nearly black",
        "fewer than 30 images", CONVERSIONS["alpha"], DUPLICATES["near_groups"],
        "The most similar near duplicates", "Longer side, px", "validation_fraction",
    ):  # fmt: skip
        assert expected in words
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert page_problems(browser, (tmp_path / "out" / "data_card.html").as_uri()) == []


def test_a_dataset_without_problems(tmp_path: Path, make_classes: Callable[..., Path]) -> None:
    source = make_classes(tmp_path / "in", count=40)
    ingest([str(source)], tmp_path / "out", OPTIONS)
    words = Page((tmp_path / "out" / "data_card.html").read_text(encoding="utf-8")).text
    for expected in (
        "None: the classes",
        "None found.",
        "None. 0 other files",
        "The same for all images: 64",
    ):
        assert expected in words


def test_each_conversion_and_count_has_a_description(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "components" / "ingest"
    named = re.findall(
        r'conversions\.append\("([^"]+)"\)',
        "".join(
            (source / name).read_text() for name in ("checks/image_validation.py", "checks/jpeg.py")
        ),
    )
    assert {*named, CLIPPED} == set(CONVERSIONS)
    counted = re.findall(r'counts\["([^"]+)"\]', (source / "splits/duplicates.py").read_text())
    assert set(counted) == set(DUPLICATES)


def test_many_classes_are_abridged(tmp_path: Path, make_classes: Callable[..., Path]) -> None:
    names = [f"class-{number:03d}" for number in range(260)]
    source = make_classes(tmp_path / "in", names, count=3)
    ingest([str(source)], tmp_path / "out", OPTIONS.model_copy(update={"near_duplicates": "off"}))
    text = (tmp_path / "out" / "data_card.html").read_text(encoding="utf-8")
    assert "And 60 more classes" in text
    assert text.count("<img") == 240
    assert len(text) < 3_000_000
