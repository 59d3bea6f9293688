"""Runs that are repeated, or killed within any step and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.local.run import read_summary
from regraft_core.formats.manifests.saved_model import SavedModelManifest

STEPS = ("resolve", "ingest", "extract_features", "train_head", "fine_tune", "evaluate", "export",
         "verify", "publish")  # fmt: skip
# What they check outside the run may change.
ALWAYS = {"resolve", "publish"}


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "regraft.cli.main", "run", "--source", str(source), "--out",
            str(out), "--backbone", "tiny", "--strategies", "head,top",
            "--fine-tune-epochs", "2", "--learning-rate", "1e-3", "--download-cache",
            str(out.parent / "cache"), "--baseline-rule", "off",
            "--recall-floor", "0", *more]  # fmt: skip


def run(source: Path, out: Path, *more: str) -> tuple[int, str]:
    ended = subprocess.run(command(source, out, *more), capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stderr


def started(progress: str) -> list[str]:
    return [line.split(":")[0] for line in progress.splitlines() if line.endswith(": start")]


@pytest.mark.long(seconds=60)
def test_an_unchanged_run_is_reused_and_a_changed_source_is_noticed(
    shapes: Path, tmp_path: Path
) -> None:
    archive, out = tmp_path / "shapes.zip", tmp_path / "run"
    images = sorted(shapes.rglob("*.png"))
    _pack(archive, shapes, images)
    assert run(archive, out)[0] == 0
    first = read_summary(out)
    code, progress = run(archive, out)
    second = read_summary(out)
    assert code == 0
    assert set(started(progress)) == ALWAYS
    assert second.model_copy(update={"timings": {}}) == first.model_copy(update={"timings": {}})

    _pack(archive, shapes, images[1:])  # the same path, other content
    code, progress = run(archive, out)
    assert code in (0, 3), progress
    assert set(STEPS[:6]) <= set(started(progress))
    assert read_summary(out).dataset_digest != first.dataset_digest


def _pack(archive: Path, root: Path, images: list[Path]) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for image in images:
            packed.write(image, image.relative_to(root))


@pytest.mark.long(seconds=75)
def test_a_run_that_is_killed_in_each_step_resumes(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done: set[str] = set()
    for step in STEPS:
        progress = _kill_at(f"{step}: start", command(shapes, out))
        again = set(started(progress)) & done - ALWAYS
        assert not again, f"killed in {step}: ran {again} again"
        done |= set(STEPS[: STEPS.index(step)])
        if step != "publish":  # which may end before the signal arrives
            assert not (out / "summary.json").exists()
            assert _versions(out) == []
    _kill_at("publish: done", command(shapes, out))  # published, but not yet reported
    code, progress = run(shapes, out)
    assert code == 0, progress
    assert not set(started(progress)) & done - ALWAYS
    (version,) = _versions(out)
    assert SavedModelManifest.read(version).digest
    assert json.loads((out / "summary.json").read_text())["verdict"] == "accepted"


@pytest.mark.long(seconds=40)
def test_finished_workers_are_not_repeated(shapes: Path, tmp_path: Path) -> None:
    """kfp runs two tasks of a loop at a time, so the third starts after one has ended."""
    step, options = "extract_features", ("--workers", "3")
    out = tmp_path / "run"
    _kill_at(f"{step}: start", command(shapes, out, *options), times=3)
    code, progress = run(shapes, out, *options)
    assert code == 0, progress
    assert 1 <= started(progress).count(step) <= 2


def _kill_at(start: str, arguments: list[str], times: int = 1) -> str:
    """Start a run, kill it with all its processes at a line of progress; return all lines."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        times -= line.startswith(start)
        if not times:
            break
    else:
        pytest.fail(f"the run ended before '{start}': {''.join(lines)}")
    os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    process.wait(timeout=60)
    return "".join(lines)


def _versions(out: Path) -> list[Path]:
    folder = out / "models" / "regraft"
    return [path for path in folder.glob("*") if path.name.isdigit()]
