"""The digits with a real backbone: strategies compared, or chosen, explained and let out."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.core.artifacts import EvaluationManifest
from pipelines.local import read_summary
from tests.pipelines.command_line import Regraft


@pytest.mark.long
def test_strategies_on_the_digits_choose_explain_and_pass_the_gate(
    regraft: Regraft, tmp_path: Path
) -> None:
    common = ["run", "digits", "--out", tmp_path / "run", "--fine-tune-epochs", "4"]

    assert regraft(*common, "--strategies", "head,top,full").code == 0
    compared = read_summary(tmp_path / "run")
    results = EvaluationManifest.read(compared.evaluation)
    assert {one.strategy for one in results.candidates} == {"head", "top", "full"}
    (chosen,) = [one for one in results.candidates if one.chosen]
    assert chosen.strategy == compared.strategy
    assert chosen.validation_accuracy == max(one.validation_accuracy for one in results.candidates)
    assert compared.verdict == "accepted"

    # Data and features stay as they are, and are not made again.
    assert regraft(*common, "--strategies", "auto").code == 0
    decided = read_summary(tmp_path / "run")
    assert decided.verdict == "accepted"
    assert decided.model_version == 2
    report = Path(decided.report).read_text(encoding="utf-8")
    assert f"Strategy {decided.strategy} was chosen" in report
