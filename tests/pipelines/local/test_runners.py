"""How containers of a local run are started; no engine is needed to see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.local.runners import container_options, in_containers, make_runner
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.runtime.errors import InputError


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe with relative paths, beside a folder that is called as weights are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("images", "imagenet"):
        (tmp_path / name).mkdir()
    return make_recipe(sources=("images", "sample:digits", "https://host/a.zip"),
                       destination="models", work_dir="work")  # fmt: skip


def test_paths_mean_the_same_inside(recipe: Recipe, tmp_path: Path) -> None:
    inside = in_containers(recipe)
    assert inside.sources == (str(tmp_path / "images"), "sample:digits", "https://host/a.zip")
    assert inside.destination == str(tmp_path / "models")
    assert inside.work_dir == str(tmp_path / "work")
    assert inside.cache == str(tmp_path / "home" / ".cache" / "regraft")
    assert inside.weights == "imagenet"


def test_only_what_is_written_can_be_written(recipe: Recipe, tmp_path: Path) -> None:
    options = container_options(in_containers(recipe), tmp_path / "out")
    mounts = {mount["Target"]: mount["ReadOnly"] or False for mount in options["mounts"]}
    home = tmp_path / "home"
    assert mounts == {
        str(tmp_path / "out"): False,
        str(tmp_path / "models"): False,
        str(home / ".cache" / "regraft"): False,
        str(home / ".keras"): False,
        str(tmp_path / "images"): True,
    }
    assert options["user"] == f"{os.getuid()}:{os.getgid()}"
    assert options["read_only"] and options["cap_drop"] == ["ALL"]
    assert options["device_requests"] == []


def test_a_required_gpu_is_passed_on(recipe: Recipe, tmp_path: Path) -> None:
    wanted = recipe.model_copy(update={"require_gpu": True})
    (request,) = container_options(wanted, tmp_path / "out")["device_requests"]
    assert request["Capabilities"] == [["gpu"]]


def test_an_unknown_runner_names_near_ones(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown runner 'dokcer'; did you mean docker"):
        make_runner("dokcer", recipe, tmp_path)
