"""What every container gets: an image, secrets by name, claims; and nothing in plain text."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipelines.cluster.pods import make_pods
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
    submission, _ = prepare(values, Settings(cache=False, pods=PODS))
    return list(yaml.safe_load_all(submission.pipeline))


def test_every_step_gets_image_secrets_and_claims(documents: list[dict[str, Any]]) -> None:
    spec, platform = documents
    executors = spec["deploymentSpec"]["executors"]
    assert {e["container"]["image"] for e in executors.values()} == {"ghcr.io/me/regraft-python:1"}
    asked = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in asked} >= STEPS
    for pod in asked.values():
        variables = [pair for one in pod["secretAsEnv"] for pair in one["keyToEnv"]]
        assert {(v["secretKey"], v["envVar"]) for v in variables} == {
            ("access", "AWS_ACCESS_KEY_ID"), ("secret", "AWS_SECRET_ACCESS_KEY"),
        }  # fmt: skip
        assert [(v["secretName"], v["mountPath"]) for v in pod["secretAsVolume"]] == [
            ("ca", "/etc/ca")
        ]
        assert [v["mountPath"] for v in pod["pvcMount"]] == ["/data"]


def test_without_cache_no_task_is_cached(documents: list[dict[str, Any]]) -> None:
    tasks = [
        task
        for component in [documents[0]["root"], *documents[0]["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert len(tasks) >= len(STEPS)
    assert not any(task.get("cachingOptions") for task in tasks)


def test_a_folder_below_a_claim_is_seen_by_the_steps() -> None:
    assert PODS.holds("/data")
    assert PODS.holds("/data/models")
    assert not PODS.holds("/database")
    assert not PODS.holds("data/models")


def test_no_variable_is_set_in_plain_text(documents: list[dict[str, Any]]) -> None:
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        assert not executor["container"].get("env")
