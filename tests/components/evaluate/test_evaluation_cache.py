"""When an earlier evaluation is reused, and when not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.evaluate.evaluate import evaluate
from components.evaluate.evaluation_cache import EvaluationKey, evaluation_key, find_cached
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifests import EvaluationManifest
from regraft_core.formats.options import GateOptions

INPUTS, CHAMPION, MODEL = "a" * 64, "c" * 64, "m" * 64


@pytest.fixture(scope="module")
def made(dataset, trained, tmp_path_factory) -> EvaluationManifest:
    out = tmp_path_factory.mktemp("made") / "evaluation"
    return evaluate([trained.candidates["head"]], dataset, out, GateOptions())


def keep(made: EvaluationManifest, root: Path, key: EvaluationKey, **changes: Any) -> Path:
    folder = root / key.name
    folder.mkdir(parents=True)
    made.model_copy(update=changes).write(folder)
    return folder


def test_an_equal_key_finds_its_evaluation(made, tmp_path) -> None:
    key = EvaluationKey(INPUTS, CHAMPION, None)
    assert find_cached(key, str(tmp_path)) is None
    folder = keep(made, tmp_path, key)
    assert find_cached(key, str(tmp_path)) == folder


def test_another_champion_or_gate_is_another_key(made, tmp_path) -> None:
    keep(made, tmp_path, EvaluationKey(INPUTS, CHAMPION, None))
    assert find_cached(EvaluationKey(INPUTS, "d" * 64, None), str(tmp_path)) is None
    assert find_cached(EvaluationKey("b" * 64, CHAMPION, None), str(tmp_path)) is None


@pytest.mark.parametrize(
    ("verdict", "model", "valid"),
    [("accepted", MODEL, True), ("rejected", MODEL, False), ("accepted", "n" * 64, False)],
)
def test_a_model_is_not_compared_with_itself(made, tmp_path, verdict, model, valid) -> None:
    before = keep(made, tmp_path, EvaluationKey(INPUTS, CHAMPION, None), verdict=verdict,
                  model_digest=model)  # fmt: skip
    cached = find_cached(EvaluationKey(INPUTS, "d" * 64, MODEL), str(tmp_path))
    assert cached == (before if valid else None)


def test_an_incomplete_evaluation_is_not_reused(tmp_path) -> None:
    key = EvaluationKey(INPUTS, CHAMPION, None)
    (tmp_path / key.name).mkdir()
    assert find_cached(key, str(tmp_path)) is None


def test_an_evaluation_is_found_in_a_bucket(made, s3, tmp_path) -> None:
    import fsspec

    fsspec.filesystem("s3").mkdir("evaluations")
    key = EvaluationKey(INPUTS, CHAMPION, None)
    keep(made, tmp_path, key)
    ContentStore("s3://evaluations/work").add(tmp_path / key.name, key.name, made.file_name)
    cached = find_cached(key, "s3://evaluations/work")
    assert cached is not None and EvaluationManifest.read(cached).digest == made.digest


def test_the_key_depends_on_content_and_gate(dataset, trained, tmp_path) -> None:
    head, top = (trained.candidates[name] for name in ("head", "top"))
    gate = GateOptions().model_dump(mode="json")
    one = evaluation_key([head, top], dataset, gate, "")
    assert one is not None
    assert one == evaluation_key([top, head], dataset, gate, str(tmp_path / "none"))
    assert one != evaluation_key([head], dataset, gate, "")
    assert one != evaluation_key([head, top], dataset, gate | {"min_accuracy": 0.5}, "")
    assert evaluation_key([head], dataset, gate | {"ood_images": "folder"}, "") is None
