"""Interrupted runs, full disks and killed workers: no partial dataset, and a new run works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.ingest.ingest import WORK, ingest
from components.ingest.stale_folders import remove_stale_folders
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError

ROOT = Path(__file__).parents[3]
CODE = (
    "import sys; from regraft_core.formats.options.ingest import IngestOptions;"
    "from components.ingest.ingest import ingest;"
    "ingest([sys.argv[1]], sys.argv[2], IngestOptions(processes=int(sys.argv[3])))"
)


# Kills all processes of the run at the first event with a mark, in any process.
KILLING = (
    "import os, signal, sys;"
    "events = ('open', 'os.rename', 'sqlite3.connect');"
    "killed = lambda event, values: event in events and sys.argv[4] in f'{event} {values}'"
    " and os.killpg(0, signal.SIGKILL);"
    "sys.addaudithook(killed);"
)


def start(source: Path, out: Path, processes: int, *mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", (KILLING if mark else "") + CODE, str(source), str(out),
         str(processes), *mark],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()


STAGES = {
    "starting": "sqlite3.connect ",
    "reading": "/.work/spool/",
    "writing": ".tfrecord",
    "describing": "data_card.html.j2",
    "listing": ".dataset.json.",
    "publishing": "/out', -1",
}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_run_leaves_no_dataset_and_a_new_run_works(
    tmp_path: Path, make_classes: Callable[..., Path], stage: str, processes: int
) -> None:
    source = make_classes(tmp_path / "in", count=20)
    out = tmp_path / "out"
    process = start(source, out, processes, STAGES[stage])
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".out.*"))
    with pytest.raises(InputError, match=r"expected dataset\.json"):
        DatasetManifest.read(out)
    manifest = ingest([str(source)], out, IngestOptions(processes=1))
    assert sum(info.count for info in manifest.splits.values()) == 40
    # Between the end of the work and the renaming there is no lock to detect the interruption by.
    assert bool(list(tmp_path.glob(".out.*"))) == (stage == "publishing")


SPOOLED = ".out.*/.work/spool/*"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_never_removes_the_folder_of_a_running_one(
    tmp_path: Path, make_classes: Callable[..., Path], processes: int
) -> None:
    source = make_classes(tmp_path / "in", count=150)
    process = start(source, tmp_path / "out", processes)
    wait_for(lambda: any(tmp_path.glob(SPOOLED)), process)
    remove_stale_folders(tmp_path / "out", WORK)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert DatasetManifest.read(tmp_path / "out").classes == ["cat", "dog"]


def test_workers_end_with_a_killed_parent(
    tmp_path: Path, make_classes: Callable[..., Path]
) -> None:
    source = make_classes(tmp_path / "in", count=150)
    process = start(source, tmp_path / "out", 2)
    wait_for(lambda: any(tmp_path.glob(SPOOLED)), process)
    process.kill()
    process.communicate(timeout=30)
    # A running worker holds the lock, so the folder is removed when all of them have ended.
    deadline = time.monotonic() + 60
    while list(tmp_path.glob(".out.*")):
        assert time.monotonic() < deadline
        remove_stale_folders(tmp_path / "out", WORK)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_another_disk_works(
    tmp_path: Path, small_disk: Path, make_classes: Callable[..., Path]
) -> None:
    source = make_classes(tmp_path / "in", count=60)
    with pytest.raises(InputError, match=r"cannot write to .*: No space left on device"):
        ingest([str(source)], small_disk / "out", IngestOptions(processes=1))
    assert list(small_disk.iterdir()) == []
    ingest([str(source)], tmp_path / "out", IngestOptions(processes=1))


def test_a_limit_of_file_sizes_is_one_line(
    tmp_path: Path, make_classes: Callable[..., Path]
) -> None:
    source = make_classes(tmp_path / "in", count=60)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);" + CODE
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "out"), "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "UnavailableError: cannot write to" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from components.ingest.catalog.rows import StoredImage
    from components.ingest.spool import StoredImageReader

    path = tmp_path / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    image = StoredImage(b"another digest", b"cat/1.png", os.fsencode(path), -1, 0, 0, 0)
    with StoredImageReader(tmp_path) as reader, pytest.raises(InputError, match="changed while"):
        reader.read(image)
    path.unlink()
    with StoredImageReader(tmp_path) as reader, pytest.raises(InputError, match="No such file"):
        reader.read(image)
