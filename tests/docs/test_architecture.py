"""The diagram of the architecture is up to date, and the files that pages name exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs.architecture_diagram import DIAGRAM, ROLES, Architecture, Layer, draw, read_architecture
from docs.results.pages import pages
from docs.results.values import ROOT

FOLDERS = (*ROLES, "docs", "examples", "tests")
NAMED = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`")
HOUSE = Architecture(
    (Layer("regraft", ("cli", "a&b")), Layer("serving", ())), {("regraft", "serving"): 7}
)


def test_the_diagram_is_up_to_date() -> None:
    assert DIAGRAM.read_text(encoding="utf-8") == draw(read_architecture()), (
        "run: make architecture"
    )


def test_floors_import_only_floors_below() -> None:
    architecture = read_architecture()
    order = [layer.name for layer in architecture.layers]
    assert order[0] == "regraft"
    assert [
        pair for pair in architecture.imports if order.index(pair[0]) > order.index(pair[1])
    ] == []


def test_the_diagram_has_rooms_and_counts() -> None:
    root = ElementTree.fromstring(draw(HOUSE))
    texts = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")]
    assert {"regraft", "cli", "a&b", "serving", "7"} <= set(texts)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
