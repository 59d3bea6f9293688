"""The command `regraft ingest` in a process: exit codes, and one line for an error."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regraft_core.formats.manifests.dataset import DatasetManifest
from tests.components.ingest.web import Reply, Web

ROOT = Path(__file__).parents[3]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `regraft ingest`, with at most two attempts of a download."""
    quick = ("--processes", "1", "--download-attempts", "2", "--download-backoff-s", "0")
    return subprocess.run(
        [sys.executable, "-m", "regraft.cli.main", "ingest", *map(str, arguments), *quick],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def errors(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on stderr that are not progress."""
    return [line for line in ran.stderr.splitlines() if not line.startswith("ingest: ")]


def make_zip(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder) + "-packed", "zip", folder))


def make_tar(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder) + "-packed", "gztar", folder))


def make_table(folder: Path) -> Path:
    rows = [f"{file},{file.parent.name}" for file in sorted(folder.rglob("*.png"))]
    table = folder.parent / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    return table


def make_fashion(folder: Path) -> Path:
    """Return a folder with small idx files, as those of Fashion-MNIST."""
    random = np.random.default_rng(0)
    idx = folder.parent / "fashion"
    idx.mkdir()
    for stem in ("train", "t10k"):
        images = random.integers(0, 256, (60, 28, 28), dtype=np.uint8)
        labels = np.arange(60, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            packed = gzip.compress(head + array.tobytes())
            (idx / f"{stem}-{kind}-ubyte.gz").write_bytes(packed)
    return idx


SOURCES: dict[str, Callable[[Path], str | Path]] = {
    "folder": lambda folder: folder,
    "zip": make_zip,
    "tar": make_tar,
    "table": make_table,
    "digits": lambda _: "sample:digits",
    "fashion": make_fashion,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_kind_of_source_works(images: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    ran = run(SOURCES[kind](images), "--out", out)
    assert (ran.returncode, errors(ran)) == (0, [])
    assert ran.stdout.splitlines()[-1].startswith(f"{out}: ")
    assert DatasetManifest.read(out).splits["train"].count > 0


def test_an_archive_is_downloaded_over_http(images: Path, tmp_path: Path, web: Web) -> None:
    address = web.plan("/pets.zip", Reply(make_zip(images).read_bytes()))
    ran = run(address, "--out", tmp_path / "out", "--download-cache", tmp_path / "cache")
    assert (ran.returncode, errors(ran)) == (0, [])


def broken(folder: Path) -> Path:
    archive = make_zip(folder)
    archive.write_bytes(archive.read_bytes()[:-300])
    return archive


def one_class(folder: Path) -> Path:
    shutil.rmtree(folder / "dog")
    return folder


def mostly_text(folder: Path) -> Path:
    for number in range(30):
        (folder / "cat" / f"note-{number}.jpg").write_text("no image")
    return folder


FAULTS: dict[str, tuple[Callable[[Path], str | Path], str]] = {
    "unknown": (lambda _: "sample:digit", "unknown source 'sample:digit'"),
    "truncated": (broken, "images-packed.zip"),
    "one class": (one_class, "expected at least two classes, found 1: cat 20"),
    "invalid files": (mostly_text, "invalid files, found 30 of 70: not-an-image 30"),
    "unreachable": (lambda _: "http://127.0.0.1:1/pets.zip", "127.0.0.1"),
    "page": (lambda folder: folder / "cat" / "000.png", "expected a zip or tar archive"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_exit_code_2(images: Path, tmp_path: Path, fault: str) -> None:
    source, message = FAULTS[fault]
    ran = run(source(images), "--out", tmp_path / "out", "--download-cache", tmp_path / "cache")
    assert ran.returncode == 2
    (line,) = errors(ran)
    assert message in line
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_invalid_options_are_one_line(images: Path, tmp_path: Path) -> None:
    for invalid in (["--test-fraction", "2"], ["--no-such-option"], ["--seed", "x"]):
        ran = run(images, "--out", tmp_path / "out", *invalid)
        assert ran.returncode == 2
        assert len(ran.stderr.splitlines()) == 1
