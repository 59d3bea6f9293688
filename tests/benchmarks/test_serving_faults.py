"""The load with faults: what counts as a server error, and a short run of all faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import MODEL, Stage, export_model, photographs
from benchmarks.serving_faults import (
    Fault,
    folder_faults,
    large_faults,
    mixed_load,
    send_faults,
    small_faults,
    write_labels,
)
from serving.running.runner import Addresses

NOWHERE = Addresses("127.0.0.1:1", "127.0.0.1:1", "embedded", 0)


def test_server_errors_are_counted() -> None:
    statuses = ["400 bad", "INVALID_ARGUMENT: x", "500 oops", "INTERNAL: x", "UNKNOWN: x", "OK"]
    faults = [Fault(f"fault {status}", lambda _, s=status: s) for status in statuses]  # type: ignore[misc]
    errors: list[str] = []
    assert send_faults(faults, NOWHERE, errors) == 6
    assert errors == [
        "fault 500 oops: 500 oops",
        "fault INTERNAL: x: INTERNAL: x",
        "fault UNKNOWN: x: UNKNOWN: x",
    ]


def test_damaged_folders_are_as_before_afterwards(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    write_labels(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for damage in folder_faults(tmp_path):
        with damage():
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        assert (tmp_path / "labels.json").read_text() == '{"stable": 1}'


@pytest.mark.long
def test_no_good_request_fails_among_faults(tmp_path: Path) -> None:
    base, bodies = tmp_path / MODEL, tmp_path / "requests"
    base.mkdir()
    bodies.mkdir()
    images = photographs(4)
    export_model(base / "1", "tiny", 32, images)
    write_labels(base)
    stage = Stage(base, "embedded", images, bodies, 1.0, 1, None)
    metrics = mixed_load(
        base, MODEL, "embedded", lambda protocol, at: stage.load(protocol, at, 4), 400, rounds=2
    )
    assert metrics["load_requests"].value >= 400
    faults = 6 * 4 * len(small_faults(MODEL)) + len(large_faults(MODEL))
    assert metrics["load_faults"].value == 2 * faults
    assert metrics["load_failed_requests"].value == 0
    assert metrics["load_server_errors"].value == 0
    assert metrics["load_memory_ratio"].value < 1.5
