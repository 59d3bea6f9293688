"""Measured values in the README and the pages are those of `benchmarks/results`."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from docs.results.benchmarks import missed_goals
from docs.results.pages import TABLES, pages, render
from docs.results.values import RESULTS, ROOT, Value, load_results
from regraft_core.runtime.container_image import IMAGE

TABLE = re.compile(r"<!-- results: .*?<!-- end of results -->", re.DOTALL)
MARKED = re.compile(r"[+-]?[\d.,e-]+<!-- result: .*?-->")
CODE = re.compile(r"^```.*?^```|`[^`]*`|^    .*?$", re.DOTALL | re.MULTILINE)
PRECISE = re.compile(r"(?<![\w.,-])\d[\d,]*\.\d+(?![\w.])")
LEAST_DIGITS = 3
WITH_RESULTS = [page for page in pages() if "<!-- result" in page.read_text(encoding="utf-8")]
RESULTS_OF_A_RUN = {"demo": SimpleNamespace(
    accuracy=Value(0.98876, ">= 0.97", True), memory=Value(1779.2), error=Value(2.2352e-08),
    difference=Value(-0.16),
)}  # fmt: skip


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_a_page_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert render(text, load_results()) == text, "run: python -m docs.results.pages"


def test_every_table_is_used() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    assert [name for name in TABLES if f"<!-- results: {name} -->" not in text] == []


@pytest.mark.parametrize("page", WITH_RESULTS, ids=lambda page: page.stem)
def test_measured_values_are_marked(page: Path) -> None:
    """A number with three digits that equals a result needs a marker."""
    text = page.read_text(encoding="utf-8")
    for pattern in (TABLE, MARKED, CODE):
        text = pattern.sub("", text)
    numbers = {
        number
        for number in PRECISE.findall(text)
        if len(number.replace(".", "").replace(",", "").lstrip("0")) >= LEAST_DIGITS
    }
    measured = [
        f"{number}: add <!-- result: {file}.{name} -->"
        for number in sorted(numbers)
        for file, metrics in load_results().items()
        for name, value in vars(metrics).items()
        if number == f"{value:,.{len(number.partition('.')[2])}f}"
    ]  # fmt: skip
    assert measured == []


def test_a_changed_digit_in_a_page_is_found() -> None:
    results = load_results()
    for page in WITH_RESULTS:
        text = page.read_text(encoding="utf-8")
        for region in [*TABLE.finditer(text), *MARKED.finditer(text)]:
            start = region.start() + region[0].index("-->") * (region.re is TABLE)
            digit = re.compile(r"\d").search(text, start)
            assert digit is not None
            changed = f"{text[: digit.start()]}{9 - int(digit[0])}{text[digit.end() :]}"
            assert changed != text
            assert render(changed, results) == text


def test_a_changed_result_is_found() -> None:
    changed = {
        name: SimpleNamespace(**{
            metric: Value(value * 1.3, value.goal, value.holds)
            for metric, value in vars(metrics).items()
        })
        for name, metrics in load_results().items()
    }  # fmt: skip
    for page in WITH_RESULTS:
        text = page.read_text(encoding="utf-8")
        assert render(text, changed) != text


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("0.97<!-- result: demo.accuracy -->", "0.99"),
        ("+0.9<!-- result: demo.accuracy -->", "+1.0"),
        ("97.1<!-- result: demo.accuracy * 100 -->%", "98.9"),
        ("1<!-- result: demo.memory -->", "1,779"),
        ("1.1<!-- result: demo.memory / 1000 --> GB", "1.8"),
        ("1e-5<!-- result: demo.error -->", "2e-8"),
        ("-0.10<!-- result: demo.difference -->", "-0.16"),
    ],
)
def test_a_value_keeps_the_format_of_its_number(text: str, rendered: str) -> None:
    assert render(text, RESULTS_OF_A_RUN).partition("<")[0] == rendered


@pytest.mark.parametrize(
    "text",
    [
        "0.97<!-- result: demo.acuracy -->",
        "0.97<!-- result: demos.accuracy -->",
        "0.97 <!-- result: demo.accuracy -->",
        "0.97<!-- result: demo.accuracy+1 -->",
        "<!-- results: no_table -->\n<!-- end of results -->",
        "<!-- results: benchmarks -->\n",
    ],
)
def test_a_marker_with_a_typo_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        render(text, RESULTS_OF_A_RUN)


def test_the_container_image_has_the_current_version() -> None:
    name = IMAGE.partition(":")[0]
    assert render(f"{name}:9.9.9-gpu {name}:1", {}) == f"{IMAGE}-gpu {name}:1"


def test_the_page_of_benchmarks_links_to_all_results() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    for file in RESULTS.glob("*.json"):
        assert f"(../benchmarks/results/{file.name})" in text


def test_missed_goals_are_listed() -> None:
    results = {"demo": SimpleNamespace(
        ratio=Value(0.71857, "<= 0.5", False), memory=Value(1779.2, "<= 4000", True, "MB"),
        gpu_memory=Value(141460.0, "<= 4096", False, "MB"),
    )}  # fmt: skip
    lines = missed_goals(results).splitlines()[2:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["`ratio`", "0.71857", "<= 0.5 |"],
        ["`gpu_memory`", "141,460 MB", "<= 4096 |"],
    ]
