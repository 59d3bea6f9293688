"""The README, the pages and the notebook use the words of the field, in US spelling."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from docs.results.pages import pages
from docs.results.values import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
CODE = re.compile(r"^```.*?^```|^    .*?$|`[^`]*`|<!--.*?-->|\]\([^)]*\)", re.DOTALL | re.MULTILINE)
INSTEAD_OF = {
    r"pictures?": "image",
    r"truths?": "true class, true label",
    r"answer(s|ed|ing)?|ask(s|ed|ing)?": "predict; send a request, respond",
    r"foret(ell|old)\w*": "predict",
    r"tells?|told|says|said": "report, show",
    r"sure(st|r)?": "confident",
    r"mends?": "calibrate",
    r"figures?": "metric, result, value",
    r"shares? of|(?:a|the) share": "fraction, ratio",
    r"unfamiliar|strangers?|likeness|unlike": "out-of-distribution, similarity, dissimilar",
    r"lets? \w+ out|goes out": "publish",
    r"in service|beyond noise": "champion, statistically significant",
    r"proof|proven": "verify, parity report",
    r"graft\w*": "add a head",
    r"besides?|anew|by itself": "next to, in addition; again; automatically, alone",
    r"comes? along": "built-in",
    r"in place of": "override, instead of",
    r"left out": "excluded, skipped",
    r"litter": "system files",
    r"lectures?": "the cats-vs-dogs example",
    r"\w*(colour|labell|licence|neighbour|behaviour|centre|artefact)\w*": "US spelling",
}
OLD = {re.compile(rf"\b(?:{old})\b", re.IGNORECASE): new for old, new in INSTEAD_OF.items()}
OLD[re.compile(r"\d %")] = "95% without a space"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose() -> dict[str, str]:
    """Return the text of each page without code and link targets."""
    texts = {name_of(page): page.read_text(encoding="utf-8") for page in pages()}
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    texts[name_of(NOTEBOOK)] = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    return {name: CODE.sub("", text) for name, text in texts.items()}


def old_words(text: str) -> list[str]:
    return [f"{match[0]}: use {new}" for old, new in OLD.items() for match in old.finditer(text)]


@pytest.mark.parametrize("name", [*map(name_of, pages()), name_of(NOTEBOOK)])
def test_a_page_uses_no_word_of_the_old_vocabulary(name: str) -> None:
    assert old_words(prose()[name]) == []


@pytest.mark.parametrize(
    "text", ["a Picture", "is asked", "95 % of", "the lecture's", "labelled", "it tells"]
)
def test_old_words_are_found(text: str) -> None:
    assert len(old_words(text)) == 1


def test_code_is_not_prose() -> None:
    text = CODE.sub("", "An image\n\n```sh\nask a picture\n```\n\n`--share`\n")
    assert old_words(text) == []
