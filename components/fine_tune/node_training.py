"""Fine-tuning by one process on each node of a Ray cluster, which share each batch."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tensorflow as tf

from components.fine_tune.fine_tune import fine_tune, load_parts
from components.fine_tune.strategies import trained_part, training_flops
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.fine_tune import SHARED_STRATEGIES, FineTuneOptions
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.safe_files import new_folder
from regraft_core.runtime.step_reports import EVENTS_VARIABLE, ReportRelay, log_progress
from regraft_core.training.checkpoint import saved_states
from regraft_core.training.model_files import count_parameters

if TYPE_CHECKING:
    from regraft_core.parallel.ray_group import NodeGroup, Place

LEAST_FLOPS = {"CPU": 1e14, "GPU": 1e16}
"""Operations of a whole training that take minutes on a node: more than its processes need to
start."""
LEAST_FLOPS_PER_BYTE = {"CPU": 1e3, "GPU": 2e4}
"""Operations of a step for each byte of its gradients, which all nodes exchange in each step. With
fewer, a node would wait longer for a network of 10 Gbit/s than it computes."""
GRADIENT_BYTES = 4


@dataclass(frozen=True)
class Inputs:
    """What a training reads, by absolute paths that all nodes have."""

    dataset: str
    features: tuple[str, ...]
    head: str

    @classmethod
    def of(
        cls, dataset: str | os.PathLike[str], features: Sequence[str | os.PathLike[str]],
        head: str | os.PathLike[str],
    ) -> Self:  # fmt: skip
        """Return the inputs at these paths."""
        paths = [str(Path(path).absolute()) for path in (dataset, head, *features)]
        return cls(paths[0], tuple(paths[2:]), paths[1])


@dataclass(frozen=True)
class Training:
    """A training for all processes; the first one writes to `out`, and reports to `events`."""

    inputs: Inputs
    out: str
    events: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """What decides whether a training is shared: operations, and bytes of gradients per step."""

    steps: int
    step_flops: float
    gradient_bytes: int

    def pays(self, processor: str) -> bool:
        """Return whether nodes with such processors, CPU or GPU, save more time than they need."""
        return (
            self.steps * self.step_flops >= LEAST_FLOPS[processor]
            and self.step_flops >= LEAST_FLOPS_PER_BYTE[processor] * self.gradient_bytes
        )


def pays(inputs: Inputs, options: FineTuneOptions, nodes: NodeGroup) -> bool:
    """Return whether the nodes train together, rather than this machine alone.

    Raises:
        InputError: dataset, features, head and weights do not match.
    """
    if options.strategy not in SHARED_STRATEGIES or len(nodes) < 2:
        return False
    cost = training_cost(inputs, options)
    found = cost is not None and cost.pays("GPU" if nodes.has_gpus else "CPU")
    if not found:
        log_progress(
            f"fine_tune {options.strategy}: trains on one node, because several would need more "
            "time to start and to exchange gradients than they save"
        )
    return found


def training_cost(inputs: Inputs, options: FineTuneOptions) -> Cost | None:
    """Return the cost of a training; None if the strategy trains the head alone.

    Raises:
        InputError: as `set_up_gpus` and `load_parts`.
    """
    set_up_gpus(GpuSetup.of(options))  # loading the network uses the GPUs
    with tf.device("CPU"):
        parts = load_parts(inputs.dataset, inputs.features, inputs.head)
    if options.strategy == "top" and parts.features.cut is None:
        return None
    count = DatasetManifest.read(inputs.dataset).splits["train"].count
    parameters = count_parameters(trained_part(parts, options.strategy)).total
    return Cost(
        options.fine_tune_epochs * math.ceil(count / options.batch_size),
        options.batch_size * training_flops(parts, options.strategy),
        GRADIENT_BYTES * parameters,
    )


def fine_tune_on_nodes(
    inputs: Inputs, folder: Path, options: FineTuneOptions, nodes: NodeGroup
) -> str:
    """Train a candidate in `<folder>/<strategy>` on all nodes; return its digest.

    If a process is lost, all start again from the last checkpoint in the work folder.

    Args:
        inputs: what all nodes read.
        folder: a folder that all nodes see.
        options: of the training.
        nodes: those of the cluster.

    Raises:
        InputError, RegraftError: as `fine_tune` and `NodeGroup.run`.
    """
    what = f"fine_tune {options.strategy}"
    log_progress(f"{what}: {len(nodes)} nodes train together")
    shared = new_folder(folder.absolute(), ".nodes-")
    try:
        out, events = shared / options.strategy, shared / "events"
        events.touch()
        training = Training(inputs, str(out), str(events), options.model_dump())
        digest = nodes.run(
            train_together, training, what,
            lambda: saved_states(options.work_dir, f"fine_tune-{options.strategy}"),
            ReportRelay(events),
        )  # fmt: skip
        out.rename(folder / options.strategy)
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    return digest


def train_together(training: Training, place: Place) -> str:
    """Train as one of several processes, and return the digest of the candidate.

    The first one writes it.

    Raises:
        InputError, RegraftError: as `fine_tune`.
    """
    if len(place.addresses) > 1:
        os.environ["TF_CONFIG"] = json.dumps({
            "cluster": {"worker": list(place.addresses)},
            "task": {"type": "worker", "index": place.number},
        })  # fmt: skip
    os.environ.pop(EVENTS_VARIABLE, None)
    if place.number == 0:
        os.environ[EVENTS_VARIABLE] = training.events
        shutil.rmtree(training.out, ignore_errors=True)  # of an attempt that was lost at its end
    inputs, options = training.inputs, FineTuneOptions(**training.options)
    return fine_tune(inputs.dataset, inputs.features, inputs.head, training.out, options).digest
