"""The whole pipeline in containers, by kfp's DockerRunner."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.local.run import StepError, Summary, run_locally
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.container_image import IMAGE

pytestmark = pytest.mark.containers

# The model is no better than a constant prediction, so the default rule is off.
UNCHECKED = {"baseline_rule": "off", "recall_floor": 0.0}
TRAINING = {"backbone": "tiny", "fine_tune_epochs": 2, "learning_rate": 1e-3} | UNCHECKED


def recipe_for(shapes: Path, out: Path, **values: object) -> Recipe:
    settings = {"destination": str(out / "models"), "model_name": "shapes",
                "work_dir": str(out / "work"), "download_cache": str(out / "cache")}  # fmt: skip
    return make_recipe(sources=(str(shapes),), **(TRAINING | settings | values))


@pytest.fixture(scope="module")
def accepted(shapes: Path, run_folder: Path) -> Summary:
    return run_locally(recipe_for(shapes, run_folder), run_folder, runner="docker")


def test_the_pipeline_publishes_a_proven_version(accepted: Summary, run_folder: Path) -> None:
    assert accepted.verdict == "accepted"
    assert accepted.published == str(run_folder / "models" / "shapes" / "1")
    exported = SavedModelManifest.read(accepted.published)
    assert exported.dataset_digest == accepted.dataset_digest
    assert max(accepted.parity.values()) <= 1e-4
    assert Path(accepted.report).is_file()


def test_the_containers_files_are_the_users(
    accepted: Summary, run_folder: Path, owned_by: Callable[[Path], bool]
) -> None:
    assert owned_by(run_folder)


def test_the_same_run_again_runs_no_done_step(
    accepted: Summary, shapes: Path, run_folder: Path
) -> None:
    again = run_locally(recipe_for(shapes, run_folder), run_folder, runner="docker")
    assert set(again.timings) == {"resolve", "publish"}
    assert again.published == accepted.published


def test_a_rejected_run_publishes_nothing(shapes: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "regraft.cli.main", "run", "--runner", "docker",
        "--out", tmp_path / "run", "--source", shapes, "--backbone", "tiny",
        "--strategies", "head",
        "--min-accuracy", "0.9999", "--min-class-recall", "0.9999",
        "--download-cache", tmp_path / "cache",
    ]  # fmt: skip
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 3, ended.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["verdict"] == "rejected"
    assert summary["published"] is None
    assert not list((tmp_path / "run" / "models").iterdir())


def test_bad_input_in_a_container_is_one_line_with_its_code(tmp_path: Path) -> None:
    empty = tmp_path / "images"
    empty.mkdir()
    with pytest.raises(StepError, match=r"ingest: .*found nothing") as caught:
        run_locally(recipe_for(empty, tmp_path / "run"), tmp_path / "run", runner="docker")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_container_that_dies_at_once_is_a_failure(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kfp calls such a container a success, as its status is gone when it asks."""
    import docker

    create = docker.models.containers.ContainerCollection.run
    monkeypatch.setattr(
        docker.models.containers.ContainerCollection, "run",
        lambda self, *a, **options: create(self, *a, **(options | {"command": ["false"]})),
    )  # fmt: skip
    with pytest.raises(StepError):
        run_locally(recipe_for(shapes, tmp_path / "run"), tmp_path / "run", runner="docker")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not list((tmp_path / "run" / "models").iterdir())


def test_without_the_image_the_remedy_is_named(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regraft_core.runtime.errors import InputError

    monkeypatch.setattr("pipelines.local.runners.IMAGE", f"{IMAGE}-not-built")
    with pytest.raises(InputError, match="make image"):
        run_locally(recipe_for(shapes, tmp_path / "run"), tmp_path / "run", runner="docker")
