"""The sentences about a head that was compared on a sample of its rows."""

from __future__ import annotations

import numpy as np
import pytest

from components.train_head.explanation import explain_head
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head import head_selection
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import solve_head


def test_the_penalty_of_the_choice_and_how_much_it_grew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_selection, "SELECTION_ROWS", 40)
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 2).astype(np.int32)
    values = (rng.normal(size=(200, 4)) + np.eye(4)[labels]).astype(np.float32)
    rows = HeadRows([values], labels, np.arange(200), values.mean(axis=0), values.var(axis=0), [4])
    options = HeadOptions(folds=2, l2=0.01)
    head = solve_head({"gap": rows}, 2, None, options)
    assert head.grown is not None
    choice, growth = explain_head(head, options)
    assert "penalty 1.0e-02" in choice
    assert growth == (
        "Fitted to 160 rows, 1 times the penalty of this choice had the lowest log loss on other "
        f"rows: {head.grown.loss:.4f}."
    )
