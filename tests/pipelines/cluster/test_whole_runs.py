"""`regraft submit --wait` with a stand-in backend that really runs the compiled pipeline."""

# kfp 2.17 cannot read postponed annotations, so they are not postponed here.
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl
from kfp.dsl import Artifact, Input, Output
from kfp.dsl.types import artifact_types

from regraft_core.formats.run_outcome import RunOutcome, read_outcome
from tests.command_line import Ended, Regraft
from tests.pipelines.cluster.backend import Backend
from tests.pipelines.cluster.kfp_server import KfpServer, kfp_server


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def make(out: Output[Artifact], number: int = 0, numbers: list[int] = [0]) -> bool:  # noqa: B006
    with open(out.path, "w") as file:
        file.write(str(number))
    return True


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def use(parts: Input[list[Artifact]], count: int = 2) -> None:
    if len(parts) != count:
        raise SystemExit(f"expected {count} parts, got {len(parts)}")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Run a small pipeline on the backend; return its state and its tasks by name."""
    monkeypatch.setattr(artifact_types, "_MINIO_LOCAL_MOUNT_PREFIX", f"{tmp_path}/")

    def run(pipeline: Any) -> tuple[str, dict[str, Any]]:
        file = tmp_path / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        backend = Backend(next(yaml.safe_load_all(file.read_text())), folder.name, folder)
        state = backend.run({})
        return state, {row["name"]: row for row in backend.rows}

    return run


def test_a_body_that_uses_its_list_fails_in_its_driver(run: Callable[..., Any]) -> None:
    @dsl.pipeline
    def wrong(numbers: list[int] = [0, 1]) -> None:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            make(number=number, numbers=numbers)

    @dsl.pipeline
    def right(numbers: list[int] = [0, 1]) -> None:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            make(number=number)

    state, tasks = run(wrong)
    assert (state, tasks["make-driver"]["state"], tasks["make"]["state"]) == (
        "FAILED",
        "FAILED",
        "",
    )
    error = "parent DAG does not have input parameter pipelinechannel--numbers"
    assert tasks["make-driver"]["error"] == error
    assert run(right)[0] == "SUCCEEDED"


def test_a_list_of_artifacts_is_cut_in_a_graph_and_whole_outside(run: Callable[..., Any]) -> None:
    @dsl.pipeline
    def inner(parts: Input[list[Artifact]]) -> None:
        use(parts=parts)

    @dsl.pipeline
    def wrong() -> None:
        with dsl.ParallelFor([0, 1]) as number:
            made = make(number=number)
        inner(parts=dsl.Collected(made.outputs["out"]))

    @dsl.pipeline
    def right(numbers: list[int] = [0, 1]) -> None:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            made = make(number=number)
        use(parts=dsl.Collected(made.outputs["out"]))

    state, tasks = run(wrong)
    assert (state, tasks["use"]["state"]) == ("FAILED", "FAILED")
    assert run(right)[0] == "SUCCEEDED"


def test_a_condition_that_does_not_hold_is_skipped_and_its_tasks_are_omitted(
    run: Callable[..., Any],
) -> None:
    @dsl.pipeline
    def pipeline() -> None:
        first = make()
        with dsl.If(first.outputs["Output"] == False):  # noqa: E712
            make(number=1)

    _, tasks = run(pipeline)
    assert (tasks["condition-1"]["state"], tasks["make-2"]["state"]) == ("SKIPPED", "")
    assert tasks["make"]["state"] == "SUCCEEDED"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KfpServer]:
    with kfp_server() as running:
        running.runs_folder = tmp_path / "runs"
        yield running


@pytest.fixture
def submit(server: KfpServer, regraft: Regraft, shapes: Path, tmp_path: Path) -> Regraft:
    """Submit a run of the shapes with a tiny backbone, and wait."""

    def submit(*arguments: str | Path | int) -> Ended:
        return regraft(
            "submit", "--host", server.address, "--wait", "--poll-s", "0.5",
            "--wait-timeout-s", 500, "--source", shapes, "--pvc", f"images={shapes}",
            "--model-name", "shapes",
            "--destination", tmp_path / "models", "--pvc", f"models={tmp_path}",
            "--work-dir", tmp_path / "work", "--backbone", "tiny",
            "--fine-tune-epochs", 1, "--learning-rate", "1e-7", "--processes", 1,
            "--baseline-rule", "off", "--recall-floor", 0, *arguments,
        )  # fmt: skip

    return submit


def outcome(tmp_path: Path, run_id: str = "run-1") -> RunOutcome:
    found = read_outcome(str(tmp_path / "models"), "shapes", run_id)
    assert found is not None
    return found


def log(server: KfpServer, run_id: str = "run-1") -> str:
    assert server.runs_folder is not None
    return (server.runs_folder / run_id / "log").read_text()


@pytest.mark.long
def test_a_run_with_eight_workers_is_published(
    server: KfpServer, submit: Regraft, tmp_path: Path
) -> None:
    ended = submit("--workers", 8, "--strategies", "head", "--min-accuracy", "0.01")
    assert ended.code == 0, log(server)
    assert ended.out.splitlines()[-1] == "accepted"
    for number in range(1, 9):
        assert f"extract-features {number}/8: SUCCEEDED" in ended.err
    assert outcome(tmp_path).version == 1
    assert (tmp_path / "models" / "shapes" / "1" / "saved_model.pb").is_file()


@pytest.mark.long
def test_a_run_in_which_the_head_wins_is_published(
    server: KfpServer, submit: Regraft, tmp_path: Path
) -> None:
    """Of equals, the head is chosen: export and verify must get it, not the last candidate."""
    ended = submit("--strategies", "head,top", "--min-accuracy", "0.01", "--learning-rate", "1e-12",
                   "--feature-dtype", "float32")  # fmt: skip
    assert ended.code == 0, log(server)
    assert (outcome(tmp_path).strategy, outcome(tmp_path).version) == ("head", 1)
    assert "# Published" in log(server)


@pytest.mark.long
def test_a_rejected_run_ends_with_3_and_repeating_it_computes_nothing(
    server: KfpServer, submit: Regraft, regraft: Regraft, tmp_path: Path
) -> None:
    ended = submit("--strategies", "head", "--min-accuracy", "0.9999")
    assert ended.code == 3, log(server)
    assert "publish" not in ended.err
    assert outcome(tmp_path).verdict == "rejected"
    server.runs["run-1"].state = "FAILED"  # only so that it may be resumed
    again = regraft("submit", "--host", server.address, "--poll-s", "0.5", "--wait",
                    "--resume", "run-1")  # fmt: skip
    assert again.code == 3, log(server, "run-2")
    assert outcome(tmp_path, "run-2").verdict == "rejected"
    assert server.runs_folder is not None
    first, second = (
        json.loads((server.runs_folder / run_id / "inputs.json").read_text())
        for run_id in ("run-1", "run-2")
    )
    assert first["ingest"] == second["ingest"]
    started = [line.split()[1] for line in log(server, "run-2").splitlines() if ": start" in line]
    assert started == ["resolve:", "record_verdict:", "conclude:"]


@pytest.mark.long
def test_an_export_that_fails_is_said_to_be_accepted(
    server: KfpServer, submit: Regraft, tmp_path: Path
) -> None:
    ended = submit("--strategies", "head", "--min-accuracy", "0.01", "--parity-tolerance", "1e-30")
    assert ended.code == 1, log(server)
    assert "the gate accepted the model, but verify failed" in ended.err.splitlines()[-1]
    assert outcome(tmp_path).accepted_only
    assert "# Accepted, not published" in log(server)
