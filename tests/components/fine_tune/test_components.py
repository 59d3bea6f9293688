"""The KFP components of the three training steps in a pipeline of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from kfp import dsl

from components.extract_features.component import extract_features
from components.fine_tune.component import fine_tune
from components.fine_tune.kfp_step import run as fine_tune_step
from components.merge_features.component import merge_features
from components.train_head.component import train_head
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.parallel.ray_executor import RAY_VARIABLE

if TYPE_CHECKING:
    from tests.conftest import Trained


def found(root: Path, name: str) -> list[Path]:
    return sorted(path.parent for path in root.rglob(name) if ".work" not in path.parts)


def test_strategies_that_no_nodes_share_need_no_cluster(
    dataset: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RAY_VARIABLE, "no address")
    folders = (dataset, trained.features, trained.head, tmp_path / "candidates")
    artifacts = [SimpleNamespace(path=str(folder), uri="", metadata={}) for folder in folders]
    fine_tune_step({"strategies": ["head"]}, *artifacts)
    assert list(CandidatesManifest.read(folders[-1]).candidates) == ["head"]
    with pytest.raises(SystemExit):
        fine_tune_step({"strategies": ["head", "full"]}, *artifacts)


def test_the_components_run_in_a_pipeline(runner: Path, dataset: Path) -> None:
    work = str(runner / "work")

    @dsl.pipeline
    def chain():  # type: ignore[no-untyped-def]
        data = dsl.importer(artifact_uri=str(dataset), artifact_class=dsl.Dataset, reimport=False)
        with dsl.ParallelFor([0, 1]) as shard:
            extracted = extract_features(
                dataset=data.output, shard=shard,
                options={"workers": 2, "backbone": "tiny", "work_dir": work,
                         "poolings": ["gap", "gmp", "flatten"]},
            )  # fmt: skip
        parts = dsl.Collected(extracted.outputs["features"])
        features = merge_features(parts=parts).outputs["features"]
        head = train_head(
            features=features,
            options={"folds": 3, "work_dir": work},
        )
        fine_tune(
            dataset=data.output, features=features, head=head.outputs["model"],
            options={"strategies": ["auto", "head"], "fine_tune_epochs": 2, "ema_momentum": 0.5,
                     "lowest_lr_ratio": 0.5, "work_dir": work},
        )  # fmt: skip
        fine_tune(
            dataset=data.output, features=features, head=head.outputs["model"],
            options={"strategies": ["top"], "budget": "1s"},
        )  # fmt: skip

    chain()
    shards = [FeaturesManifest.read(path) for path in found(runner / "work", "features.json")]
    assert [shard.shard_index for shard in sorted(shards, key=lambda s: s.shard_index)] == [0, 1]
    assert all(set(shard.arrays) == {"gap", "gmp", "flatten", "levels", "cut"} for shard in shards)
    models = [ModelManifest.read(path) for path in found(runner / "work", "model.json")]
    (head,) = (model for model in models if model.kind == "head")
    assert head.measurements["cross_validation"]
    (searched,) = found(runner / "root", "candidates.json")
    assert list(CandidatesManifest.read(searched).candidates) == ["head"]
    candidates = {m.requested_strategy: m for m in models if m.kind == "candidate"}
    assert set(candidates) == {"auto", "head"}
    candidate = candidates["auto"]
    assert (candidate.requested_strategy, candidate.strategy) == ("auto", "top")
    assert "Strategy top was chosen" in " ".join(candidate.reasoning)
    steps = {path.name.rsplit("-", 1)[0] for path in (runner / "work").iterdir()}
    assert {"features", "head", "candidates", "fine_tune-top-frozen"} <= steps


def test_a_missing_gpu_fails_the_task_with_one_line(
    runner: Path, dataset: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        pytest.skip("there is a GPU")

    @dsl.pipeline
    def chain():  # type: ignore[no-untyped-def]
        data = dsl.importer(artifact_uri=str(dataset), artifact_class=dsl.Dataset, reimport=False)
        extract_features(dataset=data.output, options={"require_gpu": True})

    with pytest.raises(RuntimeError):
        chain()
    output = "".join(capfd.readouterr())
    assert "[regraft:error:2] extract_features: require-gpu: expected a GPU" in output
    assert "Traceback" not in output.split("[regraft:error:2]")[1].split("\n")[0]
