"""The threads of an operation follow from the batches that are computed at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.server import compute_threads
from serving.server.config import BatchingConfig
from serving.server.flags import parse_flags


@pytest.mark.parametrize(
    ("cores", "batches", "threads"), [(1, 2, 1), (2, 2, 1), (4, 2, 0), (4, 4, 1), (2, 1, 0)]
)
def test_a_batch_for_each_core_has_one_thread(
    monkeypatch: pytest.MonkeyPatch, cores: int, batches: int, threads: int
) -> None:
    monkeypatch.setattr(compute_threads, "available_cores", lambda: cores)
    assert compute_threads.intra_op_threads(BatchingConfig(num_batch_threads=batches)) == threads


def test_without_batching_the_default_number_of_batches_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute_threads, "available_cores", lambda: 2)
    assert compute_threads.intra_op_threads(None) == 1


def test_the_flag_has_the_name_of_tf_serving() -> None:
    options = parse_flags(["--model_base_path=/m", "--tensorflow_intra_op_parallelism=3"])
    assert options.tensorflow_intra_op_parallelism == 3


GROWTH = """
import sys
from pathlib import Path
from serving.server.models.servable import load_servable

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

before = threads()
load_servable(sys.argv[1], intra_op_threads=60)
print(threads() - before)
"""


def test_the_number_reaches_tensorflow(exports: dict[str, Path]) -> None:
    command = [sys.executable, "-c", GROWTH, str(exports["odd"])]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout.split()[-1]) >= 60
