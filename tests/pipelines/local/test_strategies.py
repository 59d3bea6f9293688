"""The digits with a real backbone: strategies compared, chosen, explained and published."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.ingest.sources.samples import write_digits
from pipelines.local.run import STEPS_FOLDER, read_summary
from regraft_core.formats.manifests.evaluation import CandidateResult, EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from tests.command_line import Regraft


def candidate_row(result: CandidateResult) -> str:
    """Return the start of a candidate's row in the report."""
    mark = ' <span class="badge">chosen</span>' if result.chosen else ""
    return f'<td>{result.strategy}{mark}</td><td class="n">{result.validation_accuracy:.2%}</td>'


@pytest.mark.long(seconds=120)
def test_strategies_for_the_digits_are_compared_or_chosen(regraft: Regraft, tmp_path: Path) -> None:
    write_digits(tmp_path / "digits")
    for path in (tmp_path / "digits").rglob("*.png"):
        if int(path.stem) >= 600:
            path.unlink()
    common = ["run", "--source", tmp_path / "digits", "--out", tmp_path / "run", "--backbone",
              "efficientnet_lite0", "--image-px", "32", "--fine-tune-epochs", "1",
              "--learning-rate", "1e-3", "--min-accuracy", "0.7",
              "--near-duplicates", "off"]  # fmt: skip

    assert regraft(*common, "--strategies", "head,top,full").code == 0
    compared = read_summary(tmp_path / "run")
    results = EvaluationManifest.read(compared.evaluation)
    assert {one.strategy for one in results.candidates} == {"head", "top", "full"}
    (chosen,) = [one for one in results.candidates if one.chosen]
    assert chosen.strategy == compared.strategy
    lowest = min(one.validation_loss for one in results.candidates)
    assert chosen.strategy == "head" or chosen.validation_loss == lowest
    written = (tmp_path / "run" / STEPS_FOLDER).rglob(ModelManifest.file_name)
    trained = [ModelManifest.read(path.parent) for path in written]
    accuracies = {one.digest: one.validation_accuracy for one in trained if one.kind == "candidate"}
    assert {one.digest: one.validation_accuracy for one in results.candidates} == accuracies
    report = Path(compared.report).read_text(encoding="utf-8")
    for one in results.candidates:
        assert candidate_row(one) in report
    assert compared.verdict == "accepted"

    # Dataset and features are reused.
    assert regraft(*common, "--strategies", "auto").code == 0
    decided = read_summary(tmp_path / "run")
    assert decided.verdict == "accepted"
    assert decided.model_version == 2
    report = Path(decided.report).read_text(encoding="utf-8")
    assert f"Strategy {decided.strategy} was chosen" in report
