"""The workflow for continuous integration can be read, and its commands do what its page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks_of, simple_commands
from tests.docs.commands import problem_of
from tests.docs.running import reading

PAGE = ROOT / "docs" / "how-to" / "continuous-integration.md"


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (block,) = [one for one in blocks_of(PAGE) if one.language == "yaml"]
    # PyYAML reads the key `on` as true.
    workflow = yaml.safe_load(block.text)
    assert set(workflow[True]) == {"pull_request", "push"}
    (found,) = workflow["jobs"].values()
    return dict(found)


def commands(job: dict[str, Any]) -> list[str]:
    """Return the commands of the steps, that which publishes last."""
    return [step["run"] for step in job["steps"] if "run" in step]


def test_its_commands_exist(job: dict[str, Any]) -> None:
    words = [one for text in commands(job) for one in simple_commands(text)]
    assert [problem for one in words if (problem := problem_of(one))] == []
    assert any("--destination" in one for one in words)


def test_it_keeps_results_of_failed_runs_and_publishes_from_one_branch(job: dict[str, Any]) -> None:
    conditions = {step.get("name"): step.get("if") for step in job["steps"]}
    assert conditions["Keep the results"] == "always()"
    assert conditions["Publish"] == "github.ref == 'refs/heads/main'"
    assert "secrets" not in str([s for s in job["steps"] if s.get("name") != "Publish"])


@pytest.mark.long(seconds=30)
def test_its_commands_train_report_and_publish(job: dict[str, Any], desk: Path) -> None:
    recipe = "sources: [images]\nmodel_name: shapes\nbackbone: tiny\nmin_accuracy: 0.5\n"
    (desk / "recipe.yaml").write_text(recipe)
    with reading(desk) as reader:
        for command in commands(job):
            # A folder stands for the bucket, whose keys are secrets.
            code, output = reader.command(command.replace("s3://models", "released"))
            assert code == 0, output
    (keep,) = [step for step in job["steps"] if step.get("name") == "Keep the results"]
    for path in keep["with"]["path"].split():
        assert (desk / path).is_file(), path
    assert (desk / "released/shapes/1/saved_model.pb").is_file()
