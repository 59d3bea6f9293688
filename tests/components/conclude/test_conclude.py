"""The texts of the last step, and that it runs after a failure with kfp's local runner."""

# kfp 2.17 cannot read postponed annotations, so they are not postponed here.
from pathlib import Path

import pytest
from kfp import dsl
from kfp.dsl import Artifact

from components.conclude.component import conclude as component
from components.conclude.conclude import as_line, conclude, log_outcome
from components.record_verdict.component import record_verdict
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.run_outcome import RunOutcome, read_outcome, write_outcome
from regraft_core.runtime.errors import InputError
from regraft_core.tracking.mlflow_log import MlflowTarget

CHECKS = [
    Check(name="accuracy", expected="at least 0.99", received="0.9300", passed=False),
    Check(name="calibration", expected="at most 0.1", received="0.02", passed=True),
]
ACCEPTED = RunOutcome(verdict="accepted", strategy="top", metrics={"test_accuracy": 0.975},
                      version=10, path="/models/m/10")  # fmt: skip
REJECTED = RunOutcome(verdict="rejected", strategy="head", metrics={}, checks=CHECKS)


@pytest.fixture(params=["folder", "bucket"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "models")
    request.getfixturevalue("s3")
    import fsspec

    name = f"outcomes-{abs(hash(str(tmp_path))) % 10**9}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/models"


def test_each_outcome_has_its_text(destination: str) -> None:
    write_outcome(destination, "m", "run-1", ACCEPTED)
    write_outcome(destination, "m", "run-2", REJECTED)
    published = conclude("run-1", destination, "m")
    assert published == "# Published\n\n`/models/m/10`: strategy top, test accuracy 0.9750.\n"
    write_outcome(destination, "m", "run-4", ACCEPTED.model_copy(update={"added": False}))
    unchanged = conclude("run-4", destination, "m")
    assert unchanged.startswith("# Accepted, no new version")
    assert "Published" not in unchanged
    assert "`/models/m/10` has this model already" in unchanged
    rejected = conclude("run-2", destination, "m")
    assert rejected.startswith("# Rejected")
    assert "- accuracy: expected at least 0.99, got 0.9300" in rejected
    assert "calibration" not in rejected
    assert conclude("run-3", destination, "m").startswith("# No verdict")
    assert conclude("run-1", destination, "other").startswith("# No verdict")


def test_the_text_in_one_line_separates_title_and_sentences(tmp_path: Path) -> None:
    write_outcome(str(tmp_path), "m", "run-1", REJECTED)
    assert as_line(conclude("run-1", str(tmp_path), "m")) == (
        f"# Rejected: No version was added at `{tmp_path}/m`: strategy head. - accuracy: expected "
        "at least 0.99, got 0.9300"
    )


def test_a_name_in_a_check_is_no_markup(tmp_path: Path) -> None:
    """Names of classes and slices are of the data; the text is Markdown in a browser."""
    name = "camera [x](https://attacker.example)<img src=y>\n# Published"
    check = Check(name="accuracy by slice", expected="none", received=name, passed=False)
    write_outcome(str(tmp_path), "m", "run-1", REJECTED.model_copy(update={"checks": [check]}))
    text = conclude("run-1", str(tmp_path), "m")
    assert r"got camera \[x\](https://attacker.example)\<img src=y> # Published" in text
    assert "got camera [x](https://attacker.example)<img src=y> # Published" in as_line(text)


def test_an_outcome_is_read_as_it_was_written(destination: str) -> None:
    assert read_outcome(destination, "m", "run-1") is None
    write_outcome(destination, "m", "run-1", REJECTED)
    write_outcome(destination, "m", "run-1", ACCEPTED)
    assert read_outcome(destination, "m", "run-1") == ACCEPTED


@pytest.mark.parametrize("run_id", ["", "../x", "a/b"])
def test_a_run_id_is_never_a_path(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(InputError, match="run id: expected"):
        write_outcome(str(tmp_path), "m", run_id, ACCEPTED)


def test_a_damaged_outcome_is_one_line(tmp_path: Path) -> None:
    write_outcome(str(tmp_path), "m", "run-1", ACCEPTED)
    (tmp_path / "m" / ".runs" / "run-1.json").write_text("{")
    with pytest.raises(InputError, match="expected the outcome of a run"):
        conclude("run-1", str(tmp_path), "m")


def test_an_accepted_model_that_was_not_published_has_its_text(destination: str) -> None:
    write_outcome(destination, "m", "run-1", ACCEPTED.model_copy(update={"version": None}))
    text = conclude("run-1", destination, "m")
    assert text.startswith("# Accepted, not published")
    assert "`export`, `verify` or `publish` failed" in text
    assert "strategy top, test accuracy 0.9750" in text


def test_a_verdict_is_recorded_with_its_reasons(
    evaluation: Path, dataset: Path, tmp_path: Path
) -> None:
    folder = Artifact(uri=str(evaluation))
    options = {"destination": str(tmp_path), "model_name": "m", "run_id": "run-1"}
    assert record_verdict.python_func(options, folder) is False
    outcome = read_outcome(str(tmp_path), "m", "run-1")
    assert outcome is not None and outcome.verdict == "rejected"
    assert [check.name for check in outcome.checks if not check.passed] == ["accuracy"]
    assert outcome.details.dataset_digest == DatasetManifest.read(dataset).digest
    assert outcome.details.parameters["backbone"] == "tiny"
    assert outcome.details.history


def test_a_run_without_a_readable_outcome_is_not_logged(tmp_path: Path) -> None:
    target = MlflowTarget("http://127.0.0.1:9")
    line = log_outcome("run-1", str(tmp_path), "m", target)
    assert line == "mlflow: nothing to log without a verdict"
    write_outcome(str(tmp_path), "m", "run-1", ACCEPTED)
    (tmp_path / "m" / "labels.json").write_text("[1]")
    line = log_outcome("run-1", str(tmp_path), "m", target)
    assert line.startswith("warning: mlflow: the run is complete but not logged: ")


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
        last = component(
            run_id="run-1", destination=str(runner), model_name="m", mlflow="", ray_nodes=0
        )
        last.after(work).ignore_upstream_failure()

    with pytest.raises(RuntimeError):
        outer()
    (outcome,) = (runner / "root").glob("*/conclude/outcome")
    assert outcome.read_text().startswith("# No verdict")
