"""Settings of all pods: a container image, secrets by name, PVCs; and no secret in plain text."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipelines.cluster.pod_settings import make_pods
from pipelines.cluster.submit import Settings, prepare
from pipelines.recipes.recipe_file import with_recipe
from tests.pipelines.cluster.test_compilation import STEPS

PODS = make_pods(
    "ghcr.io/me/regraft-python:1",
    ("s3:access=AWS_ACCESS_KEY_ID", "s3:secret=AWS_SECRET_ACCESS_KEY"),
    ("ca=/etc/ca",),
    ("work=/data",),
)


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    values = with_recipe("digits", {"destination": "/data/models", "work_dir": "/data/work"})
    submission = prepare(values, Settings(cache=False, pods=PODS))
    return list(yaml.safe_load_all(submission.pipeline))


def test_every_step_has_image_secrets_and_pvcs(documents: list[dict[str, Any]]) -> None:
    spec, platform = documents
    executors = spec["deploymentSpec"]["executors"]
    assert {e["container"]["image"] for e in executors.values()} == {"ghcr.io/me/regraft-python:1"}
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in pods} >= STEPS
    for pod in pods.values():
        variables = [pair for one in pod["secretAsEnv"] for pair in one["keyToEnv"]]
        assert {(v["secretKey"], v["envVar"]) for v in variables} == {
            ("access", "AWS_ACCESS_KEY_ID"), ("secret", "AWS_SECRET_ACCESS_KEY"),
        }  # fmt: skip
        assert [(v["secretName"], v["mountPath"]) for v in pod["secretAsVolume"]] == [
            ("ca", "/etc/ca")
        ]
        assert [v["mountPath"] for v in pod["pvcMount"]] == ["/data"]


def test_without_cache_no_step_is_cached(documents: list[dict[str, Any]]) -> None:
    components = [documents[0]["root"], *documents[0]["components"].values()]
    tasks = [task for component in components
             for task in component.get("dag", {}).get("tasks", {}).items()]  # fmt: skip
    steps = {name: task for name, task in tasks if name in STEPS}
    assert set(steps) == STEPS
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in steps.values())


def test_a_folder_in_a_pvc_is_mounted() -> None:
    assert PODS.has_mounted("/data")
    assert PODS.has_mounted("/data/models")
    assert not PODS.has_mounted("/database")
    assert not PODS.has_mounted("data/models")


def test_no_variable_is_set_in_plain_text(documents: list[dict[str, Any]]) -> None:
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        assert not executor["container"].get("env")
