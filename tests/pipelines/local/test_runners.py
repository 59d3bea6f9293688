"""Options of the containers of a local run; no Docker engine is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.local.runners import container_options, make_runner, with_absolute_paths
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.runtime.errors import InputError


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe with relative paths, next to a folder with the name of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("images", "imagenet"):
        (tmp_path / name).mkdir()
    return make_recipe(sources=("images", "sample:digits", "https://host/a.zip"),
                       destination="models", work_dir="work")  # fmt: skip


def test_paths_mean_the_same_in_containers(recipe: Recipe, tmp_path: Path) -> None:
    inside = with_absolute_paths(recipe)
    assert inside.sources == (str(tmp_path / "images"), "sample:digits", "https://host/a.zip")
    assert inside.destination == str(tmp_path / "models")
    assert inside.work_dir == str(tmp_path / "work")
    assert inside.download_cache == str(tmp_path / "home" / ".cache" / "regraft")
    assert inside.weights == "imagenet"


def test_only_what_is_written_can_be_written(recipe: Recipe, tmp_path: Path) -> None:
    events = tmp_path / "out" / "events.jsonl"
    options = container_options(with_absolute_paths(recipe), tmp_path / "out", events)
    mounts = {mount["Target"]: mount["ReadOnly"] or False for mount in options["mounts"]}
    home = tmp_path / "home"
    assert mounts == {
        str(tmp_path / "out"): False,
        str(tmp_path / "models"): False,
        str(home / ".cache" / "regraft"): False,
        str(home / ".keras"): False,
        str(tmp_path / "images"): True,
    }
    assert options["environment"]["REGRAFT_EVENTS"] == str(events)
    assert options["user"] == f"{os.getuid()}:{os.getgid()}"
    assert options["read_only"] and options["cap_drop"] == ["ALL"]
    assert options["device_requests"] == []


def test_variables_in_urls_are_passed_on_and_files_are_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SIGNED", "sig=s")
    for name in ("w.h5", "fixes.csv"):
        (tmp_path / name).touch()
    (tmp_path / "hub").mkdir()
    recipe = make_recipe(
        sources=("https://host/a.zip?${SIGNED}",), weights="w.h5#sha256=00", fixes="fixes.csv",
        backbone="hub:hub#sha256=00",
    )  # fmt: skip
    inside = with_absolute_paths(recipe)
    assert inside.weights == f"{tmp_path}/w.h5#sha256=00"
    assert inside.backbone == f"hub:{tmp_path}/hub#sha256=00"
    options = container_options(inside, tmp_path / "out", tmp_path / "out" / "events")
    assert options["environment"]["SIGNED"] == "sig=s"
    mounted = [mount["Target"] for mount in options["mounts"]]
    assert {str(tmp_path / name) for name in ("w.h5", "fixes.csv", "hub")} <= set(mounted)


def test_a_required_gpu_is_passed_on(recipe: Recipe, tmp_path: Path) -> None:
    with_gpu = recipe.model_copy(update={"require_gpu": True})
    (request,) = container_options(with_gpu, tmp_path / "out", tmp_path)["device_requests"]
    assert request["Capabilities"] == [["gpu"]]


def test_an_unknown_runner_gets_suggestions(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown runner 'dokcer'; did you mean docker"):
        make_runner("dokcer", recipe, tmp_path, tmp_path)
