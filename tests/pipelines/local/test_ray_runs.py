"""The option `ray` of a local run: what does not go with it is found before the run."""

from __future__ import annotations

import os

import pytest

from pipelines.local.ray_runs import check_ray, using_ray
from pipelines.recipes.recipe import make_recipe
from regraft_core.parallel import ray_package
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from regraft_core.runtime.errors import InputError


@pytest.mark.parametrize(
    ("ray", "runner", "workers", "message"),
    [
        ("127.0.0.1", "subprocess", 1, "expected local, auto or ray://HOST:PORT, got 127.0.0.1"),
        ("auto", "docker", 1, "expected the runner subprocess with it, got docker"),
        ("local", "subprocess", 2, "expected workers 1 with it, got 2"),
    ],
)
def test_other_options_that_do_not_go_with_it(
    ray: str, runner: str, workers: int, message: str
) -> None:
    recipe = make_recipe(sources=("sample:digits",), destination="/models", workers=workers)
    check_ray("", recipe, runner)
    with pytest.raises(InputError, match=f"^ray: {message}"):
        check_ray(ray, recipe, runner)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_package, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"found none; pip install 'regraft\[ray\]'"):
        ray_package.check_ray_package("local")


def test_steps_get_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RAY_VARIABLE, raising=False)
    with using_ray("ray://head:10001"):
        assert os.environ[RAY_VARIABLE] == "ray://head:10001"
    with using_ray(""):
        assert RAY_VARIABLE not in os.environ
