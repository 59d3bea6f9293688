"""The steps of a run on a cluster download what they read, and hardly more."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.step_downloads import (
    WIRING,
    CountingServer,
    Downloads,
    bytes_read,
    measure_downloads,
    measure_worker,
)


def test_the_server_counts_the_objects_that_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    server = CountingServer()
    with server.running() as environment:
        store = s3fs.S3FileSystem(
            key="key", secret="secret", endpoint_url=environment["AWS_ENDPOINT_URL"],
            skip_instance_cache=True,
        )  # fmt: skip
        store.mkdir("counted")
        store.pipe_file("counted/a", b"x" * 1000)
        store.ls("counted")
        assert server.sent == 0
        assert len(store.cat_file("counted/a")) == 1000
        assert server.sent == 1000
        store.cat_file("counted/a")
        assert server.sent == 2000


def test_only_input_files_that_were_opened_count(tmp_path: Path) -> None:
    for folder, name, size in (("in", "a", 10), ("in", "b", 100), ("out", "c", 1000)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(b"x" * size)
    (tmp_path / "out" / "link").hardlink_to(tmp_path / "in" / "b")
    opened = {str(tmp_path / name) for name in ("in/b", "out/c", "out/link", "in/gone")}
    assert bytes_read(opened, [tmp_path / "in"]) == 100
    assert Downloads(downloaded=105, read=100).ratio == 1.05


@pytest.mark.long(seconds=60)
def test_no_step_downloads_more_than_it_reads(tmp_path: Path, shapes: Path) -> None:
    found = measure_downloads(tmp_path, {
        "sources": (str(shapes),), "backbone": "tiny", "strategies": ("head", "top"),
        "fine_tune_epochs": 1, "min_accuracy": 0.01, "ema_momentum": 0.0,
        "baseline_rule": "off", "recall_floor": 0.0,
    })  # fmt: skip
    assert set(found) == set(WIRING) - {"ingest"}
    too_much = {step: one for step, one in found.items() if not 0.95 <= one.ratio <= 1.05}
    assert too_much == {}


@pytest.mark.long(seconds=20)
def test_a_worker_downloads_its_part_of_the_dataset(tmp_path: Path, shapes: Path) -> None:
    values = {"sources": (str(shapes),), "backbone": "tiny"}
    alone, half = (measure_worker(tmp_path / str(n), values, n) for n in (1, 2))
    assert half < alone < 1  # no worker reads the test split
