"""Compares the outputs in the pages with what their blocks print now, or replaces them by it.

    python -m pytest tests/docs/test_running.py tests/docs/test_examples.py --update-docs \
        -m "long or not long"

Lines that a page leaves out by `...` stay out. Review the changes: the words around an output may
quote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

import pytest

from docs.results.values import ROOT
from tests.docs.running import Exchange, matches, normalize

OMITTED = "..."
LEAST_SIMILARITY = 0.6


def check(exchanges: Iterable[Exchange], config: pytest.Config) -> None:
    """Compare the outputs with the pages, or write them into the pages with `--update-docs`."""
    found = list(exchanges)
    if config.getoption("update_docs", False):
        update_pages(found)
        return
    differences = [message for exchange in found for message in exchange.differences]
    assert not differences, "\n".join(differences)


def update_pages(exchanges: Iterable[Exchange]) -> None:
    """Write what was printed into the pages."""
    by_page: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        by_page.setdefault(exchange.block.page, []).append(exchange)
    for page, found in by_page.items():
        file = ROOT / page
        file.write_text(updated_page(file.read_text(encoding="utf-8"), found), encoding="utf-8")


def updated_page(text: str, exchanges: Iterable[Exchange]) -> str:
    """Return a page with the printed outputs, replaced from the last to the first."""
    lines = text.splitlines(keepends=True)
    for exchange in reversed(list(exchanges)):
        shown = exchange.shown.splitlines()
        if not shown or exchange.block.language not in ("console", "text"):
            continue
        start = exchange.block.line
        if exchange.command:
            last = exchange.command.splitlines()[-1]
            start = next(
                n + 1 for n in range(start, len(lines)) if lines[n].rstrip() in
                (f"$ {last}", f"> {last}") and lines[n + 1].rstrip("\n") == shown[0]
            )  # fmt: skip
        new = updated_output(exchange.shown, exchange.printed, exchange.exact)
        lines[start : start + len(shown)] = [f"{line}\n" for line in new]
    return "".join(lines)


def updated_output(shown: str, printed: str, exact: bool = False) -> list[str]:
    """Return the lines of `printed` that correspond to those that a page shows."""
    old, new = shown.splitlines(), [line.rstrip() for line in printed.splitlines()]
    while new and not new[-1]:
        new.pop()
    updated: list[str] = []
    end, omitted = 0, False
    for line, match in zip(old, _align(old, new, exact), strict=True):
        if line.strip() == OMITTED:
            omitted = True
            updated.append(line)
        elif match is not None:
            updated += [] if omitted else new[end:match]
            updated.append(line if OMITTED in line and matches(line, new[match]) else new[match])
            end, omitted = match + 1, False
    return updated if omitted else updated + new[end:]


def _align(old: list[str], new: list[str], exact: bool) -> list[int | None]:
    """Return the corresponding line of `new` for each line of `old`, in ascending order.

    The alignment with the highest sum of similarities, by dynamic programming.
    """
    scores = [[_similarity(line, other, exact) for other in new] for line in old]
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1])
            if scores[i][j] > 0:
                best[i][j] = max(best[i][j], scores[i][j] + best[i + 1][j + 1])
    matched: list[int | None] = []
    j = 0
    for i in range(len(old)):
        while j < len(new) and best[i][j] == best[i][j + 1]:
            j += 1
        if j < len(new) and scores[i][j] > 0 and best[i][j] == scores[i][j] + best[i + 1][j + 1]:
            matched.append(j)
            j += 1
        else:
            matched.append(None)
    return matched


def _similarity(old: str, new: str, exact: bool) -> float:
    """Return 0 if a printed line does not correspond to a shown line; more is more similar."""
    if not old.strip() or not new.strip() or old.strip() == OMITTED:
        return 0.0
    ratio = SequenceMatcher(None, old, new, autojunk=False).ratio()
    if matches(old, new, exact) or normalize(old) == normalize(new):
        return 1.0 + ratio
    return ratio if ratio >= LEAST_SIMILARITY else 0.0
