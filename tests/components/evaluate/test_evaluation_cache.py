"""When an evaluation of before stands, and when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.evaluate.evaluate import evaluate
from components.evaluate.evaluation_cache import EvaluationKey, evaluation_key, find_cached
from regraft_core.formats.manifests import EvaluationManifest
from regraft_core.formats.options import GateOptions

ASKED, CHAMPION, MODEL = "a" * 64, "c" * 64, "m" * 64


@pytest.fixture(scope="module")
def made(dataset, trained, tmp_path_factory) -> EvaluationManifest:
    out = tmp_path_factory.mktemp("made") / "evaluation"
    return evaluate([trained.candidates["head"]], dataset, out, GateOptions())


def keep(made: EvaluationManifest, kept: Path, question: EvaluationKey, **changes: Any) -> Path:
    folder = kept / f"evaluation-{question.digest}"
    folder.mkdir(parents=True)
    made.model_copy(update=changes).write(folder)
    return folder


def test_the_same_question_has_its_answer(made, tmp_path) -> None:
    question = EvaluationKey(ASKED, CHAMPION, None)
    assert find_cached(question, tmp_path) is None
    folder = keep(made, tmp_path, question)
    assert find_cached(question, tmp_path) == folder


def test_another_champion_or_another_gate_is_another_question(made, tmp_path) -> None:
    keep(made, tmp_path, EvaluationKey(ASKED, CHAMPION, None))
    assert find_cached(EvaluationKey(ASKED, "d" * 64, None), tmp_path) is None
    assert find_cached(EvaluationKey("b" * 64, CHAMPION, None), tmp_path) is None


@pytest.mark.parametrize(
    ("verdict", "model", "stands"),
    [("accepted", MODEL, True), ("rejected", MODEL, False), ("accepted", "n" * 64, False)],
)
def test_a_model_is_not_judged_against_itself(made, tmp_path, verdict, model, stands) -> None:
    before = keep(made, tmp_path, EvaluationKey(ASKED, CHAMPION, None), verdict=verdict,
                  model_digest=model)  # fmt: skip
    found = find_cached(EvaluationKey(ASKED, "d" * 64, MODEL), tmp_path)
    assert found == (before if stands else None)


def test_a_half_made_answer_is_none(tmp_path) -> None:
    question = EvaluationKey(ASKED, CHAMPION, None)
    (tmp_path / f"evaluation-{question.digest}").mkdir()
    assert find_cached(question, tmp_path) is None


def test_the_question_follows_content_and_gate(dataset, trained, tmp_path) -> None:
    head, top = (trained.candidates[name] for name in ("head", "top"))
    gate = GateOptions().model_dump(mode="json")
    one = evaluation_key([head, top], dataset, gate, "")
    assert one is not None
    assert one == evaluation_key([top, head], dataset, gate, str(tmp_path / "none"))
    assert one != evaluation_key([head], dataset, gate, "")
    assert one != evaluation_key([head, top], dataset, gate | {"min_accuracy": 0.5}, "")
    assert evaluation_key([head], dataset, gate | {"unfamiliar": "folder"}, "") is None
