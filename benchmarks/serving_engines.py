"""The embedded server with each engine: throughput with concurrent requests, all sides in turn."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.load_generator import Load, run_load
from benchmarks.result import Metric
from regraft_core.formats.engine_packages import is_engine_installed
from regraft_core.formats.fingerprint import write_fingerprint
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.serving_engines import may_use_openvino
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.machine import computes_bfloat16
from regraft_core.runtime.version import VERSION
from serving.batching_file import batching_flags
from serving.running.runner import Addresses, ServeOptions, running_server

CONCURRENCY = 16
REQUESTS = 256
GOAL = ">= 2"
REFERENCE = "tf_float32"
START_S = 600.0
"""Seconds in which a server must be ready: its warm-up requests compile the kernels."""
BEFORE = "before"
UNITS = {"rate": "images/s", "cpu": "ms/image", "client_cpu": "ms/image", "ratio_to_tf": "",
         "ratio_to_before": ""}  # fmt: skip


def allow_openvino(folder: Path, network: Any, backbone: str, preprocessing: Preprocessing) -> None:
    """Write the network for OpenVINO and a manifest that allows it, without a proof.

    Args:
        folder: an exported model.
        network: the function of its graph.
        backbone: name of the backbone.
        preprocessing: of the model.
    """
    from components.export.openvino_network import write_for_openvino

    if not is_engine_installed("openvino") or not write_for_openvino(folder, network):
        return
    SavedModelManifest(
        digest=write_fingerprint(folder),
        made_by=MadeBy(step="bench", version=VERSION, seconds=0.0),
        model_digest="", evaluation_digest="", dataset_digest="", strategy="head",
        backbone=backbone, weights_digest="", classes=[], preprocessing=preprocessing,
        temperature=1.0, metrics={}, checks=[], signatures=[], versions={},
        serving_engines=["tf", "openvino"], serving_precisions=["float32", "bfloat16"],
    ).write(folder)  # fmt: skip


def engines(
    base: Path,
    model: str,
    make_load: Callable[[str, str, int], Load],
    rounds: int,
    before: Path | None,
) -> dict[str, Metric]:
    """Measure the rate of each engine, its ratio to TensorFlow's in float32, and the CPU time.

    The rates of a round are measured in turn, and their ratio is that of the round, because other
    work on the machine changes both. The CPU time for an image hardly depends on other work.

    Args:
        base: folder of the model's versions; OpenVINO is measured if it may serve version 1.
        model: its name.
        make_load: a load of a protocol, an address and a concurrency.
        rounds: each side is measured as often; medians count.
        before: checkout of an earlier version, whose embedded server is one more side.
    """
    found: dict[str, dict[str, list[float]]] = {}
    with _started(base, model, before) as servers:
        for number in range(rounds):
            print(f"serving: round {number + 1} of {rounds}", flush=True)
            for protocol in ("grpc", "rest"):
                rates = {}
                for name, at in servers.items():
                    address = at.grpc if protocol == "grpc" else at.rest
                    values = _measure(make_load(protocol, address, CONCURRENCY), at.pid)
                    rates[name] = values["rate"]
                    if name != BEFORE:
                        values["ratio_to_tf"] = rates[name] / rates[REFERENCE]
                    if before:
                        values["ratio_to_before"] = rates[name] / rates[BEFORE]
                    series = found.setdefault(f"{name}_{protocol}", {})
                    for kind, value in values.items():
                        series.setdefault(kind, []).append(value)
    medians = {
        side: {kind: statistics.median(values) for kind, values in series.items()}
        for side, series in found.items()
    }
    metrics = {
        f"{side}_c{CONCURRENCY}_{kind}": Metric(value, UNITS[kind])
        for side, values in medians.items()
        for kind, value in values.items()
    }
    kind = "ratio_to_before" if before else "ratio_to_tf"
    for protocol in ("grpc", "rest"):
        best = max(medians[f"{name}_{protocol}"][kind] for name in servers)
        metrics[f"best_engine_{protocol}_{kind}"] = Metric(best, goal=GOAL if before else "")
    return metrics


@contextlib.contextmanager
def _started(base: Path, model: str, before: Path | None) -> Iterator[dict[str, Addresses]]:
    """Start the server of each side; yield the addresses by name, the references first."""
    sides = ({BEFORE: []} if before else {}) | _sides(base / "1")
    servers = {}
    with contextlib.ExitStack() as stack:
        for name, flags in sides.items():
            print(f"serving: starting {name}", flush=True)
            options = ServeOptions(
                flags=(*batching_flags(), *flags),
                deadline_s=START_S,
                environment={"PYTHONPATH": str(before.absolute())} if name == BEFORE else {},
            )
            server = running_server(base, model, "embedded", options)
            try:
                servers[name] = stack.enter_context(server)
            except RegraftError as error:
                if name in (REFERENCE, BEFORE):
                    raise
                print(f"serving: {name} is left out: {error}", flush=True)
        yield servers


def _sides(version: Path) -> dict[str, list[str]]:
    """Return the flags of each server to measure, first those of the reference."""
    precisions = {"float32": [], "bfloat16": ["--mixed_precision=bfloat16"]}
    if not computes_bfloat16():
        del precisions["bfloat16"]
    return {
        f"{engine}_{precision}": [f"--serving_engine={engine}", *flags]
        for engine in ("tf", "openvino")
        for precision, flags in precisions.items()
        if engine == "tf" or may_use_openvino(version, "")
    }


def _measure(load: Load, pid: int) -> dict[str, float]:
    """Send a load to the server of a process; return its rate and the CPU time of both sides.

    It has a number of requests and no time, so that a busy machine responds to some, too.
    """
    before = cpu_seconds(pid)
    result = run_load(replace(load, requests=REQUESTS))
    spent = cpu_seconds(pid) - before
    return {
        "rate": result.rate,
        "cpu": spent / result.total * 1e3,
        "client_cpu": result.cpu_s / result.total * 1e3,
    }


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far; 0 on systems other than Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
