"""The server beside in-process calls: throughput, latency, memory, new versions, and the end.

    regraft bench serving --json benchmarks/results/serving.json
    regraft bench serving --json benchmarks/results/serving.json --only latency
    regraft bench serving --json tried.json --tune batching.config

`efficientnet_lite0` at 224 px, one JPEG a request, the load from a lean process of its own on the
same machine. The in-process side calls the same SavedModel in this process; both sides run in turn,
round after round, and figures are medians over the rounds. With `--only` one part is measured and
the other figures of the file are kept, as all parts take about eight minutes. `--tune` writes the
batching file with the highest throughput for the model and machine, in TF Serving's own format.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import Load, percentile, run_load
from benchmarks.result import Figure, Measured, kept, run_benchmark
from benchmarks.serving_soak import memory, swap
from benchmarks.serving_tune import tune
from regraft_client import grpc_wire, rest_wire
from regraft_client.grpc_wire import Target
from serving.running.runner import ServeOptions, running_server
from serving.running.serve import batching_flags

MODEL, CLASSES, IMAGES = "images", 10, 32
BATCHES = (1, 8, 16, 32)
BUSY = 16
PROTOCOLS = ("grpc", "rest")
SIGNATURES = ("serving_default", "features", "classify")


def photographs(count: int) -> list[bytes]:
    """Return JPEG images of several sizes, about as costly to decode as small photographs."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        rough = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        size = 320 + 8 * (number % 5), 240 + 8 * (number % 3)
        buffer = io.BytesIO()
        rough.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def export_model(folder: Path, backbone: str, image_px: int, images: Sequence[bytes]) -> None:
    """Export a pretrained backbone with an untrained head, and its warm-up requests."""
    from components.export.signatures import Postprocessing, build_archive
    from components.export.warmup import write_warmup
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import join
    from regraft_core.backbones.table import find_backbone
    from regraft_core.formats.manifests import Preprocessing
    from regraft_core.formats.options import ExportOptions, HeadOptions
    from regraft_core.training.heads import build_head, pooling_layer

    row = find_backbone(backbone)
    head = build_head(row.width, CLASSES, HeadOptions(seed=1))
    part = build_backbone(row, image_px, "imagenet")
    model = join(part, [pooling_layer("gap"), *head.layers[1:]])
    names = tuple(f"class {number}" for number in range(CLASSES))
    postprocessing = Postprocessing(
        Preprocessing(image_px=image_px, scaling=row.scaling), names, 1.0, None
    )
    build_archive(model, "head_gap", postprocessing).write_out(str(folder), verbose=False)
    write_warmup(folder, images, image_px, ExportOptions().warmup_batch_size)


@dataclass(frozen=True)
class Stage:
    """A published model, the folder of encoded requests for it, and how long to measure."""

    base: Path
    engine: str
    images: Sequence[bytes]
    bodies: Path
    seconds: float
    rounds: int

    def load(self, protocol: str, address: str, concurrency: int, signature: str = "") -> Load:
        """Return a load of single images."""
        path, files = write_requests(self.bodies, protocol, signature, self.images)
        return Load(protocol, address, path, files, concurrency, self.seconds)

    def options(self, batching: bool = True) -> ServeOptions:
        """Return the options of a server with the default batching file, or without batching."""
        return ServeOptions(flags=batching_flags() if batching else ())


def write_requests(
    folder: Path, protocol: str, signature: str, images: Sequence[bytes]
) -> tuple[str, list[str]]:
    """Write one encoded request per image; return their path on the server and the files."""
    target, model_path = Target(MODEL), rest_wire.model_path(MODEL, None, None)
    calls: Mapping[tuple[str, str], Callable[[bytes], Any]] = {
        ("grpc", "classify"): lambda one: grpc_wire.classify_call(target, [one]),
        ("grpc", ""): lambda one: grpc_wire.predict_call(target, [one], signature),
        ("rest", "classify"): lambda one: rest_wire.classify_call(model_path, [one]),
        ("rest", ""): lambda one: rest_wire.predict_call(model_path, [one], signature),
    }
    make = calls[protocol, signature if signature == "classify" else ""]
    path, files = "", []
    for number, image in enumerate(images):
        call = make(image)
        path = call.path
        body = call.request.SerializeToString() if protocol == "grpc" else call.body
        file = folder / f"{protocol}-{signature}-{number}"
        file.write_bytes(body)
        files.append(str(file))
    return path, files


class InProcess:
    """The same SavedModel, called in this process."""

    def __init__(self, stage: Stage) -> None:
        import tensorflow as tf

        model = tf.saved_model.load(str(stage.base / "1"))
        self._call = model.signatures["serving_default"]
        self._seconds = stage.seconds
        self._batches = {
            size: tf.constant([stage.images[n % IMAGES] for n in range(size)]) for size in BATCHES
        }
        for batch in self._batches.values():
            for _ in range(3):
                self._call(image_bytes=batch)

    def times(self, size: int) -> list[float]:
        """Return the seconds of each call with so many images."""
        found = []
        end = time.perf_counter() + self._seconds
        while (start := time.perf_counter()) < end:
            self._call(image_bytes=self._batches[size])
            found.append(time.perf_counter() - start)
        return found


def throughput(stage: Stage) -> dict[str, Figure]:
    """Measure requests a second at concurrency 16 beside the best batch size in process."""
    inside = InProcess(stage)
    rates: dict[str, list[float]] = {}
    with running_server(stage.base, MODEL, stage.engine, stage.options()) as at:
        for _ in range(stage.rounds):
            for size in BATCHES[1:]:
                times = inside.times(size)
                rates.setdefault(f"batch {size}", []).append(size * len(times) / sum(times))
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                answered = run_load(stage.load(protocol, address, BUSY))
                rates.setdefault(protocol, []).append(answered.rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max(BATCHES[1:], key=lambda size: medians[f"batch {size}"])
    top = medians[f"batch {best}"]
    return {
        "in_process_best_batch": Figure(best, "images"),
        "in_process_best_rate": Figure(top, "images/s"),
        **{f"{name}_c{BUSY}_rate": Figure(medians[name], "images/s") for name in PROTOCOLS},
        "grpc_share_of_in_process": Figure(medians["grpc"] / top, goal=">= 0.9"),
        "rest_share_of_in_process": Figure(medians["rest"] / top, goal=">= 0.9"),
    }


def latency(stage: Stage) -> dict[str, Figure]:
    """Measure one request at a time beside single calls in process."""
    inside = InProcess(stage)
    times: dict[str, list[float]] = {}
    with running_server(stage.base, MODEL, stage.engine, stage.options()) as at:
        for _ in range(stage.rounds):
            times.setdefault("in_process", []).extend(inside.times(1))
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                answered = run_load(stage.load(protocol, address, 1))
                times.setdefault(protocol, []).extend(answered.times)
    figures = {}
    for percent in (50, 99):
        bound = percentile(times["in_process"], percent) * 1e3 * 1.15 + 3
        for name, values in times.items():
            goal = "" if name == "in_process" else f"<= {bound:.1f}"
            figures[f"{name}_c1_p{percent}"] = Figure(percentile(values, percent) * 1e3, "ms", goal)
    return figures


def table(stage: Stage) -> dict[str, Figure]:
    """Measure protocol x signature x concurrency x batching."""
    figures = {}
    for batching in (True, False):
        with running_server(stage.base, MODEL, stage.engine, stage.options(batching)) as at:
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                for signature in SIGNATURES:
                    for concurrency in (1, BUSY):
                        load = stage.load(protocol, address, concurrency, signature)
                        answered = run_load(load)
                        kind = "batched" if batching else "single"
                        name = f"{protocol}_{signature}_c{concurrency}_{kind}"
                        figures[f"{name}_rate"] = Figure(answered.rate, "images/s")
                        figures[f"{name}_p50"] = Figure(answered.p50_ms, "ms")
                        figures[f"{name}_p99"] = Figure(answered.p99_ms, "ms")
    return figures


PARTS: Mapping[str, Callable[[Stage], dict[str, Figure]]] = {
    "throughput": throughput,
    "latency": latency,
    "table": table,
    "swap": lambda stage: swap(stage.base, MODEL, stage.engine, stage.load),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    parts = ["all", *PARTS, "memory"]
    parser.add_argument("--only", choices=parts, default="all", help="Measure this part alone.")
    parser.add_argument("--tune", type=Path, help="Write the best batching file here instead.")
    parser.add_argument("--model", type=Path, help="A SavedModel folder, instead of a backbone.")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--engine", default="embedded", help="As in `regraft serve`.")
    parser.add_argument("--seconds", type=float, default=3.0, help="For each measurement.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--requests", type=int, default=50_000, help="Of the memory test.")


def measure(options: argparse.Namespace) -> Measured:
    """Measure the parts asked for, or tune."""
    with tempfile.TemporaryDirectory() as work:
        base, bodies = Path(work) / MODEL, Path(work) / "requests"
        base.mkdir()
        bodies.mkdir()
        images = photographs(IMAGES)
        if options.model is not None:
            shutil.copytree(options.model, base / "1")
        elif options.only != "memory" or options.tune is not None:
            export_model(base / "1", options.backbone, options.image_px, images)
        stage = Stage(base, options.engine, images, bodies, options.seconds, options.rounds)
        figures: dict[str, Figure] = {}
        if options.tune is not None:
            load = stage.load
            figures = tune(base, MODEL, options.engine, load, options.tune, options.rounds)
        else:
            for name, part in PARTS.items():
                if options.only in (name, "all"):
                    print(f"serving: measuring {name}", flush=True)
                    figures |= part(stage)
            if options.only in ("memory", "all"):
                print("serving: measuring memory", flush=True)
                figures |= small_memory(stage, Path(work) / "small", options.requests)
    if options.only != "all":
        figures = kept(options.json) | figures
    model = options.model or f"{options.backbone} at {options.image_px} px"
    return Measured(
        f"{model}, one JPEG a request, load from another process on the same machine, "
        f"{options.engine} server, {options.seconds:g} s a measurement, {options.rounds} rounds; "
        f"the memory test sends {options.requests} requests to the backbone `tiny` at 32 px",
        figures,
    )


def small_memory(stage: Stage, base: Path, requests: int) -> dict[str, Figure]:
    """Measure memory on the backbone `tiny`, so that many requests take little time."""
    base.mkdir()
    export_model(base / "1", "tiny", 32, stage.images)
    load = stage.load
    return memory(base, MODEL, stage.engine, lambda at: load("grpc", at, BUSY), requests)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    run_benchmark("serving", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
