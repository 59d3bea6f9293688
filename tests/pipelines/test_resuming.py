"""A run that is repeated, or killed within any step and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from components.core.artifacts import SavedModelManifest
from pipelines.local import read_summary

STEPS = ("ingest", "extract_features", "train_head", "fine_tune", "evaluate", "export", "verify",
         "publish")  # fmt: skip
ALWAYS = {"ingest", "evaluate", "publish"}  # they look whether the outside has changed


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "run", "--source", str(source), "--out",
            str(out), "--backbone", "tiny", "--strategies", "head,top", "--head-epochs", "8",
            "--fine-tune-epochs", "2", "--learning-rate", "1e-3", "--cache",
            str(out.parent / "cache"), *more]  # fmt: skip


def run(source: Path, out: Path, *more: str) -> tuple[int, str]:
    ended = subprocess.run(command(source, out, *more), capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stderr


def started(progress: str) -> list[str]:
    return [line.split(":")[0] for line in progress.splitlines() if line.endswith(": start")]


@pytest.mark.long
def test_an_unchanged_run_does_nothing_twice_and_a_changed_source_is_seen(
    shapes: Path, tmp_path: Path
) -> None:
    archive, out = tmp_path / "shapes.zip", tmp_path / "run"
    pictures = sorted(shapes.rglob("*.png"))
    _pack(archive, shapes, pictures)
    assert run(archive, out)[0] == 0
    first = read_summary(out)
    code, progress = run(archive, out)
    second = read_summary(out)
    assert code == 0
    assert set(started(progress)) == ALWAYS
    assert second.model_copy(update={"timings": {}}) == first.model_copy(update={"timings": {}})

    _pack(archive, shapes, pictures[1:])  # the same link, other content
    code, progress = run(archive, out)
    assert code in (0, 3), progress
    assert set(STEPS[:5]) <= set(started(progress))
    assert read_summary(out).dataset_digest != first.dataset_digest


def _pack(archive: Path, root: Path, pictures: list[Path]) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for picture in pictures:
            packed.write(picture, picture.relative_to(root))


@pytest.mark.long
def test_a_run_that_is_killed_in_each_step_goes_on(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done: set[str] = set()
    for step in STEPS:
        progress = _kill_within(step, command(shapes, out))
        again = set(started(progress)) & done - ALWAYS
        assert not again, f"killed in {step}: ran {again} again"
        done |= set(STEPS[: STEPS.index(step)])
        assert not (out / "summary.json").exists()
        assert _versions(out) == []
    code, progress = run(shapes, out)
    assert code == 0, progress
    assert not set(started(progress)) & done - ALWAYS
    (version,) = _versions(out)
    assert SavedModelManifest.read(version).digest
    assert json.loads((out / "summary.json").read_text())["verdict"] == "accepted"


def _kill_within(step: str, arguments: list[str]) -> str:
    """Start a run, kill it with all its processes as soon as `step` starts; return its progress."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if line.strip() == f"{step}: start":
            break
    else:
        pytest.fail(f"the run ended before {step}: {''.join(said)}")
    os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    process.wait(timeout=60)
    return "".join(said)


def _versions(out: Path) -> list[Path]:
    folder = out / "models" / "regraft"
    return [path for path in folder.glob("*") if path.name.isdigit()]
