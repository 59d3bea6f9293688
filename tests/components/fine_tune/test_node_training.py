"""Training on Ray nodes: when it pays, and the weights of one process although one is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from components.fine_tune import node_training
from components.fine_tune.candidates import fine_tune_all
from components.fine_tune.node_training import Cost, Inputs, Training, train_together, training_cost
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.parallel.ray_executor import ray_nodes
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from regraft_core.parallel.ray_cluster import RayCluster
    from regraft_core.parallel.ray_group import Place
    from tests.conftest import Trained

# Gradients of two processes are added in another order than those of one.
TOLERANCE = 1e-4
OPTIONS = FineTuneOptions(
    strategy="top", fine_tune_epochs=6, learning_rate=3e-3, batch_size=15, precision="float32"
)


def end_after(state: Path) -> None:
    """Kill this process after a state of the training was saved."""
    while not list(state.glob("*/checkpoint.json")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_die_once(training: Training, place: Place) -> str:
    """Train, but kill the second process of the first attempt after its first epoch."""
    work = Path(training.options["work_dir"])
    if place.number == 1 and not list(work.glob("*/checkpoint.json")):
        threading.Thread(target=end_after, args=(work,)).start()
    return train_together(training, place)


@pytest.fixture
def two_nodes(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster of two nodes with one CPU each, on which any training pays."""
    monkeypatch.setattr(Cost, "pays", lambda cost, processor: True)
    cluster.add_node()
    yield
    cluster.stop_node()


@pytest.mark.long(seconds=60)
def test_two_nodes_agree_with_one_although_a_process_is_killed(
    dataset: Path, trained: Trained, weak_head: Path, two_nodes: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    inputs = dataset, trained.features, weak_head
    fine_tune_all(*inputs, tmp_path / "one", [OPTIONS])
    monkeypatch.setattr(node_training, "train_together", train_and_die_once)
    work = tmp_path / "work"
    work.mkdir()
    resumable = OPTIONS.model_copy(update={"work_dir": str(work)})
    capsys.readouterr()
    with ray_nodes(tmp_path, *inputs, work) as nodes:
        fine_tune_all(*inputs, tmp_path / "two", [resumable], nodes)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[regraft] fine_tune top: 2 nodes train together"
    (lost,) = [number for number, line in enumerate(lines) if "a process was lost (" in line]
    assert any("top: resumes after epoch" in line for line in lines[lost:])
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["candidates.json", "top"]
    one, two = (ModelManifest.read(tmp_path / name / "top") for name in ("one", "two"))
    assert two.measurements["processes"] == 2
    assert "2 processes trained together" in " ".join(two.reasoning)
    assert "processes" not in one.measurements
    assert two.strategy == "top"
    assert [epoch.loss for epoch in two.history] == pytest.approx(
        [epoch.loss for epoch in one.history], abs=TOLERANCE
    )
    assert one.validation_loss < ModelManifest.read(weak_head).validation_loss
    both = (load_model(tmp_path / name / "top")[0].get_weights() for name in ("one", "two"))
    for mine, theirs in zip(*both, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("cost", "processor", "pays"),
    [
        (Cost(10_000, 1e12, 10**8), "CPU", True),
        (Cost(10_000, 1e12, 10**8), "GPU", False),  # the network is slower than the GPUs
        (Cost(10_000, 1e13, 10**8), "GPU", True),
        (Cost(10, 1e12, 10**8), "CPU", False),  # too short
        (Cost(10**6, 1e9, 10**7), "CPU", False),  # too many gradients for their operations
    ],
)
def test_long_trainings_of_many_operations_are_shared(
    cost: Cost, processor: str, pays: bool
) -> None:
    assert cost.pays(processor) == pays


def test_a_required_gpu_is_sought_before_the_network_is_loaded() -> None:
    options = OPTIONS.model_copy(update={"require_gpu": True, "gpu_memory_mb": 10**9})
    with pytest.raises(InputError, match=r"^(require-gpu|gpu-memory-mb): "):
        training_cost(Inputs("nowhere", ("nowhere",), "nowhere"), options)


def test_the_cost_is_that_of_the_trained_part(dataset: Path, trained: Trained) -> None:
    inputs = Inputs.of(dataset, [trained.features], trained.head)
    top, full = (
        training_cost(inputs, OPTIONS.model_copy(update={"strategy": strategy}))
        for strategy in ("top", "full")
    )
    assert top is not None
    assert full is not None
    assert top.steps == full.steps == OPTIONS.fine_tune_epochs * 6
    assert top.step_flops < full.step_flops
    assert 0 < top.gradient_bytes < full.gradient_bytes
