"""The texts of the last step, and that it runs after a failure with kfp's local runner."""

# kfp 2.17 cannot read postponed annotations, so they are not postponed here.
from pathlib import Path

import pytest
from kfp import dsl

from components.conclude.component import conclude as component
from components.conclude.conclude import RunStatus, conclude
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests import Preprocessing, SavedModelManifest
from regraft_core.runtime.errors import InputError

LONG_AGO, FAR_AHEAD = "2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


def publish_version(folder: Path) -> Path:
    """Write a version with only its manifest."""
    folder.mkdir(parents=True)
    preprocessing = Preprocessing(image_px=64, scaling="tiny")
    SavedModelManifest(
        digest="d" * 64, made_by=MadeBy(step="export", version="0", seconds=1.0),
        model_digest="m" * 64, evaluation_digest="e" * 64, dataset_digest="s" * 64,
        strategy="top", backbone="tiny", weights_digest="w" * 64, classes=["a", "b"],
        preprocessing=preprocessing, temperature=1.0, metrics={"test_accuracy": 0.975},
        checks=[], signatures=["serving_default"], versions={},
    ).write(folder)  # fmt: skip
    return folder


def test_a_published_version_is_named(tmp_path: Path) -> None:
    publish_version(tmp_path / "m" / "9")
    latest = publish_version(tmp_path / "m" / "10")
    text = conclude(RunStatus("SUCCEEDED"), str(tmp_path), "m", LONG_AGO)
    assert text == f"# Published\n\n`{latest}`: strategy top, test accuracy 0.9750.\n"
    older = conclude(RunStatus("SUCCEEDED"), str(tmp_path), "m", FAR_AHEAD)
    assert older.startswith("# Rejected")


@pytest.mark.parametrize(
    ("status", "destination", "expected"),
    [
        (
            RunStatus("FAILED", "verify: predictions\n differ"),
            "models",
            "# Failed\n\nverify: predictions",
        ),
        (RunStatus("FAILED"), "models", "see the log of the failed step"),
        (RunStatus("CANCELLED"), "models", "# Cancelled"),
        (RunStatus("SUCCEEDED"), "nowhere", "# Rejected"),
        (RunStatus("SUCCEEDED"), "s3://bucket/models", "s3://bucket/models/m"),
    ],
)
def test_each_status_has_its_text(status: RunStatus, destination: str, expected: str) -> None:
    assert expected in conclude(status, destination, "m", LONG_AGO)


def test_an_invalid_start_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ISO 8601, got 'today'"):
        conclude(RunStatus("SUCCEEDED"), str(tmp_path), "m", "today")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def fail() -> None:
    raise SystemExit(3)


def test_the_component_runs_after_a_failure(runner: Path) -> None:
    @dsl.pipeline(name="inner")
    def inner() -> None:
        fail()

    @dsl.pipeline(name="outer")
    def outer() -> None:
        work = inner()
        last = component(started="2026-01-01T00:00:00Z", destination=str(runner), model_name="m")
        last.after(work).ignore_upstream_failure()

    with pytest.raises(RuntimeError):
        outer()
    (outcome,) = (runner / "root").glob("*/conclude/outcome")
    assert outcome.read_text().startswith("# Failed")
