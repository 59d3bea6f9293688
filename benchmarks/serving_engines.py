"""The embedded server with each engine: throughput with concurrent requests, all sides in turn."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable
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
from regraft_core.runtime.machine import computes_bfloat16
from regraft_core.runtime.version import VERSION
from serving.batching_file import batching_flags
from serving.running.runner import ServeOptions, running_server

CONCURRENCY = 16
GOAL = ">= 2"


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
    base: Path, model: str, make_load: Callable[[str, str, int], Load], rounds: int
) -> dict[str, Metric]:
    """Measure the rate of each engine, its ratio to TensorFlow's in float32, and the CPU time.

    The CPU time of the server for an image hardly depends on other work on the machine.

    Args:
        base: folder of the model's versions; OpenVINO is measured if it may serve version 1.
        model: its name.
        make_load: a load of a protocol, an address and a concurrency.
        rounds: each side is measured as often; medians count.
    """
    flags = {"tf_float32": ["--serving_engine=tf"]}
    if may_use_openvino(base / "1", ""):
        flags["openvino_float32"] = ["--serving_engine=openvino"]
        if computes_bfloat16():
            flags["openvino_bfloat16"] = [
                "--serving_engine=openvino",
                "--mixed_precision=bfloat16",
            ]
    rates: dict[str, list[float]] = {}
    cpu_ms: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        addresses = {}
        for name, given in flags.items():
            options = ServeOptions(flags=(*batching_flags(), *given))
            server = running_server(base, model, "embedded", options)
            addresses[name] = stack.enter_context(server)
        for _ in range(rounds):
            for name, at in addresses.items():
                for protocol, address in (("grpc", at.grpc), ("rest", at.rest)):
                    load = make_load(protocol, address, CONCURRENCY)
                    before = cpu_seconds(at.pid)
                    rate = run_load(load).rate
                    spent = cpu_seconds(at.pid) - before
                    images = rate * (load.warm_s + load.seconds)
                    rates.setdefault(f"{name}_{protocol}", []).append(rate)
                    cpu_ms.setdefault(f"{name}_{protocol}", []).append(spent / images * 1e3)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    metrics = {
        f"{name}_c{CONCURRENCY}_rate": Metric(value, "images/s") for name, value in medians.items()
    }
    for name, values in cpu_ms.items():
        metrics[f"{name}_c{CONCURRENCY}_cpu"] = Metric(statistics.median(values), "ms/image")
    for name in addresses:
        for protocol in ("grpc", "rest"):
            ratio = medians[f"{name}_{protocol}"] / medians[f"tf_float32_{protocol}"]
            metrics[f"{name}_{protocol}_ratio_to_tf"] = Metric(ratio)
    for protocol in ("grpc", "rest"):
        best = max(metrics[f"{name}_{protocol}_ratio_to_tf"].value for name in addresses)
        metrics[f"best_engine_{protocol}_ratio_to_tf"] = Metric(best, goal=GOAL)
    return metrics


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far; 0 on systems other than Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
