"""The README's figures are those of the results that its commands link to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

NUMBER = re.compile(r"(?<![\w.])\d[\d.]*(?:e-\d+)?(?![\w.]| %)")
RESULT = re.compile(r"\]\((benchmarks/results/\w+\.json)\)")
UNITS = (1.0, 1000.0)  # MB may be told as GB, ms as s


def measured(readme: str) -> Iterator[tuple[str, str, str]]:
    """Yield figure, measured value and result file of each row of the table."""
    table = readme.split("\n## Measured\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    file = ""
    for row in rows[1:]:
        found = RESULT.search(row[-1])
        file = found[1] if found else file
        yield row[0], row[1], file


def untold(cell: str, figures: list[float]) -> list[str]:
    """Return the numbers of a cell that none of the figures gives when it is rounded like them."""
    # Words tell the sign.
    told = [abs(value) / unit for value in figures for unit in UNITS]
    return [n for n in NUMBER.findall(cell) if not any(_rounded(value, n) for value in told)]


def _rounded(value: float, number: str) -> bool:
    if "e" in number:
        return f"{value:.0e}" == f"{float(number):.0e}"
    decimals = len(number.partition(".")[2])
    return f"{value:.{decimals}f}" == number


def test_every_figure_of_the_readme_is_in_its_results() -> None:
    rows = list(measured((ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(rows) > 10
    wrong = []
    for figure, cell, file in rows:
        results = json.loads((ROOT / Path(file)).read_text(encoding="utf-8"))
        values = [one["value"] for one in results["figures"].values()]
        assert NUMBER.search(cell), figure
        wrong += [f"{figure}: {number} is not in {file}" for number in untold(cell, values)]
    assert wrong == []


@pytest.mark.parametrize(
    ("cell", "left"),
    [
        ("0.978 (95 % interval 0.956 to 0.989)", []),
        ("148 s / 1.8 GB", []),
        ("1e-8 / 3e-8", ["3e-8"]),
        ("12.9 (misses) times", ["12.9"]),
    ],
)
def test_numbers_are_compared_as_they_are_rounded(cell: str, left: list[str]) -> None:
    assert untold(cell, [0.97759, 0.95641, 0.9886, 148.11, 1786.8, 1.1e-8]) == left
