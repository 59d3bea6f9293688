"""Training on two machines: two local processes end with the same weights as one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from components.fine_tune import fine_tune as fine_tuning
from components.fine_tune.fine_tune import fine_tune, load_parts
from components.fine_tune.training_precision import TrainingPrecision
from components.train_head.train_head import train_head
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training import batch_limit
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Trained

ROOT = Path(__file__).parents[3]
# Gradients of two processes are added in another order than those of one.
TOLERANCE = 1e-4
OPTIONS = {"strategy": "full", "fine_tune_epochs": 2, "learning_rate": 1e-3, "batch_size": 15}
PROGRAM = """
import sys
from regraft_core.formats.options.fine_tune import FineTuneOptions
from components.fine_tune.fine_tune import fine_tune
dataset, features, head, out, work = sys.argv[1:]
precision = "mixed" if out.endswith("worker1") else "auto"  # all compute in what all can
options = FineTuneOptions(**{options!r}, work_dir=work, precision=precision)
fine_tune(dataset, [features], head, out, options)
"""


def free_ports(count: int) -> list[int]:
    """Return unused ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_machines_do_not_choose_batches_of_their_own(
    dataset: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = load_parts(dataset, [trained.features], trained.head)
    monkeypatch.setattr(batch_limit, "_main_memory_bytes", lambda: 1)
    monkeypatch.setattr(fine_tuning, "process_count", lambda: 2)
    options = FineTuneOptions(**OPTIONS)
    assert fine_tuning._precision(parts, "full", options) == (TrainingPrecision(""), 15)


@pytest.mark.long
def test_two_machines_agree_with_one(dataset: Path, trained: Trained, tmp_path: Path) -> None:
    """Only the chief writes."""
    head = tmp_path / "head"
    train_head([trained.features], head, HeadOptions(l2=100.0))
    fine_tune(dataset, [trained.features], head, tmp_path / "one", FineTuneOptions(**OPTIONS))
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    program = PROGRAM.replace("{options!r}", repr(OPTIONS))
    processes = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task), "PYTHONPATH": str(ROOT)}
        inputs = [dataset, trained.features, head, tmp_path / f"worker{index}", tmp_path / "work"]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, inputs)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert not (tmp_path / "worker1").exists()
    assert len(list((tmp_path / "work").glob("*/epoch-2.npz"))) == 1
    both, one = ModelManifest.read(tmp_path / "worker0"), ModelManifest.read(tmp_path / "one")
    assert [line.loss for line in both.history] == pytest.approx(
        [line.loss for line in one.history], abs=TOLERANCE
    )
    assert one.validation_loss < ModelManifest.read(head).validation_loss
    for mine, theirs in zip(
        load_model(tmp_path / "worker0")[0].get_weights(),
        load_model(tmp_path / "one")[0].get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)
