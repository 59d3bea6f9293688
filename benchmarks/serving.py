"""The server compared with in-process calls: throughput, latency, memory, new versions, faults.

    regraft bench serving --json benchmarks/results/serving.json
    regraft bench serving --json benchmarks/results/serving.json --only latency
    regraft bench serving --json benchmarks/results/serving.json --only load
    regraft bench serving --json benchmarks/results/serving.json --only engines
    regraft bench serving --json tried.json --tune batching.config

`efficientnet_lite0` at 224 px, one JPEG per request, sent by another process on the same machine.
The in-process side calls the same SavedModel in this process. Both sides run in turn, and metrics
are medians over the rounds. `load` sends good requests among malformed and hostile ones; `engines`
compares the embedded server with TensorFlow, with OpenVINO, and with `--before CHECKOUT` that of an
earlier version. All parts take about a quarter of an hour; `--only` measures one part and keeps the
other metrics of the file.
`--tune` writes the batching file with the highest throughput for the model and the machine, in TF
Serving's format.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.batching_search import tune
from benchmarks.load_generator import Load, LoadResult, percentile, run_load
from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark
from benchmarks.serving_engines import allow_openvino, engines
from benchmarks.serving_faults import mixed_load, write_labels
from benchmarks.serving_soak import memory, swap
from regraft_client import grpc_wire, rest_wire
from regraft_client.grpc_wire import Target
from regraft_core.runtime.machine import available_cores
from serving.batching_file import batching_flags
from serving.running.runner import ServeOptions, running_server

MODEL, CLASSES, IMAGES = "images", 10, 32
BATCHES = (1, 8, 16, 32)
CONCURRENCY = 16
PROTOCOLS = ("grpc", "rest")
SIGNATURES = ("serving_default", "features", "classify")


def photographs(count: int) -> list[bytes]:
    """Return JPEG images of several sizes that take as long to decode as small photographs."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    photos = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        size = 320 + 8 * (number % 5), 240 + 8 * (number % 3)
        buffer = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    return photos


def export_model(folder: Path, backbone: str, image_px: int, images: Sequence[bytes]) -> None:
    """Export a pretrained backbone with an untrained head, and its warm-up requests."""
    from components.export.signatures import Postprocessing, build_archive
    from components.export.warmup import write_warmup
    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import join
    from regraft_core.formats.manifests.model import Preprocessing
    from regraft_core.formats.options.export import ExportOptions
    from regraft_core.training.heads import build_head, pooling_layer

    row = find_backbone(backbone)
    head = build_head(row.width, CLASSES, seed=1)
    part = build_backbone(row, image_px, "imagenet")
    model = join(part, [pooling_layer("gap"), *head.layers[1:]])
    names = tuple(f"class {number}" for number in range(CLASSES))
    preprocessing = Preprocessing(image_px=image_px, scaling=row.scaling)
    built = build_archive(model, "head_gap", Postprocessing(preprocessing, names, 1.0, None))
    built.archive.write_out(str(folder), verbose=False)
    write_warmup(folder, images, image_px, ExportOptions().warmup_batch_size)
    allow_openvino(folder, built.network, backbone, preprocessing)


@dataclass(frozen=True)
class Stage:
    """A published model, the folder of encoded requests for it, and the measuring time."""

    base: Path
    engine: str
    images: Sequence[bytes]
    bodies: Path
    seconds: float
    rounds: int
    before: Path | None

    def load(self, protocol: str, address: str, concurrency: int, signature: str = "") -> Load:
        """Return a load with one image per request."""
        path, files = write_requests(self.bodies, protocol, signature, self.images)
        return Load(protocol, address, path, files, concurrency, self.seconds)

    def options(self, batching: bool = True) -> ServeOptions:
        """Return the server options: with the default batching file, or without batching."""
        return ServeOptions(flags=batching_flags() if batching else ())


def write_requests(
    folder: Path, protocol: str, signature: str, images: Sequence[bytes]
) -> tuple[str, list[str]]:
    """Write one encoded request per image; return the path on the server and the files."""
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
        """Return the seconds of each call with `size` images."""
        seconds = []
        end = time.perf_counter() + self._seconds
        while (start := time.perf_counter()) < end:
            self._call(image_bytes=self._batches[size])
            seconds.append(time.perf_counter() - start)
        return seconds


def throughput(stage: Stage) -> dict[str, Metric]:
    """Measure the throughput at concurrency 16 and that of the best batch size in process."""
    inside = InProcess(stage)
    rates: dict[str, list[float]] = {}
    with running_server(stage.base, MODEL, stage.engine, stage.options()) as at:
        for _ in range(stage.rounds):
            for size in BATCHES[1:]:
                times = inside.times(size)
                rates.setdefault(f"batch {size}", []).append(size * len(times) / sum(times))
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                result = run_load(stage.load(protocol, address, CONCURRENCY))
                rates.setdefault(protocol, []).append(result.rate)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max(BATCHES[1:], key=lambda size: medians[f"batch {size}"])
    top = medians[f"batch {best}"]
    return {
        "in_process_best_batch": Metric(best, "images"),
        "in_process_best_rate": Metric(top, "images/s"),
        **{f"{name}_c{CONCURRENCY}_rate": Metric(medians[name], "images/s") for name in PROTOCOLS},
        "grpc_ratio_to_in_process": Metric(medians["grpc"] / top, goal=">= 0.9"),
        "rest_ratio_to_in_process": Metric(medians["rest"] / top, goal=">= 0.9"),
    }


def latency(stage: Stage) -> dict[str, Metric]:
    """Measure the latency of one request at a time and of single calls in process."""
    inside = InProcess(stage)
    times: dict[str, list[float]] = {}
    with running_server(stage.base, MODEL, stage.engine, stage.options()) as at:
        for _ in range(stage.rounds):
            times.setdefault("in_process", []).extend(inside.times(1))
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                result = run_load(stage.load(protocol, address, 1))
                times.setdefault(protocol, []).extend(result.times)
    metrics = {}
    for percent in (50, 99):
        bound = percentile(times["in_process"], percent) * 1e3 * 1.15 + 3
        for name, values in times.items():
            goal = "" if name == "in_process" else f"<= {bound:.1f}"
            metrics[f"{name}_c1_p{percent}"] = Metric(percentile(values, percent) * 1e3, "ms", goal)
    for name, values in times.items():
        goal = "" if name == "in_process" else "<= 1.3"
        ratio = percentile(values, 99) / percentile(values, 50)
        metrics[f"{name}_c1_p99_to_p50"] = Metric(ratio, goal=goal)
    return metrics


def threads(stage: Stage) -> dict[str, Metric]:
    """Measure the server with one thread and with all cores for each operation, in turn."""
    found: dict[str, list[LoadResult]] = {}
    with contextlib.ExitStack() as stack:
        counts = {"one_thread": 1, "all_cores": available_cores()}
        addresses = {}
        for name, count in counts.items():
            flag = f"--tensorflow_intra_op_parallelism={count}"
            options = ServeOptions(flags=(*batching_flags(), flag))
            server = running_server(stage.base, MODEL, stage.engine, options)
            addresses[name] = stack.enter_context(server)
        for _ in range(stage.rounds):
            for name, at in addresses.items():
                for concurrency in (1, CONCURRENCY):
                    result = run_load(stage.load("grpc", at.grpc, concurrency))
                    found.setdefault(f"{name}_c{concurrency}", []).append(result)
    metrics = {}
    for name in counts:
        times = [second for result in found[f"{name}_c1"] for second in result.times]
        for percent in (50, 99):
            metrics[f"{name}_c1_p{percent}"] = Metric(percentile(times, percent) * 1e3, "ms")
        rate = statistics.median(result.rate for result in found[f"{name}_c{CONCURRENCY}"])
        metrics[f"{name}_c{CONCURRENCY}_rate"] = Metric(rate, "images/s")
    return metrics


def table(stage: Stage) -> dict[str, Metric]:
    """Measure protocol x signature x concurrency x batching."""
    metrics = {}
    for batching in (True, False):
        with running_server(stage.base, MODEL, stage.engine, stage.options(batching)) as at:
            for protocol, address in zip(PROTOCOLS, (at.grpc, at.rest), strict=True):
                for signature in SIGNATURES:
                    for concurrency in (1, CONCURRENCY):
                        load = stage.load(protocol, address, concurrency, signature)
                        result = run_load(load)
                        kind = "batched" if batching else "unbatched"
                        name = f"{protocol}_{signature}_c{concurrency}_{kind}"
                        metrics[f"{name}_rate"] = Metric(result.rate, "images/s")
                        metrics[f"{name}_p50"] = Metric(result.p50_ms, "ms")
                        metrics[f"{name}_p99"] = Metric(result.p99_ms, "ms")
    return metrics


PARTS: Mapping[str, Callable[[Stage], dict[str, Metric]]] = {
    "throughput": throughput,
    "latency": latency,
    "threads": threads,
    "table": table,
    "engines": lambda stage: engines(stage.base, MODEL, stage.load, stage.rounds, stage.before),
    "swap": lambda stage: swap(stage.base, MODEL, stage.engine, stage.load),
}
SMALL_PARTS = ("memory", "load")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parts = ["all", *PARTS, *SMALL_PARTS]
    parser.add_argument("--only", choices=parts, default="all", help="Measure only this part.")
    parser.add_argument(
        "--tune", type=Path, help="Write the best batching file here; measure nothing else."
    )
    parser.add_argument(
        "--model", type=Path, help="SavedModel folder to measure; overrides --backbone."
    )
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--engine", default="embedded", help="As in `regraft serve`.")
    parser.add_argument("--seconds", type=float, default=3.0, help="Seconds per measurement.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--before", type=Path, help="Checkout of an earlier version, for the engines."
    )
    parser.add_argument("--requests", type=int, default=50_000, help="Requests of the memory test.")
    parser.add_argument(
        "--load-requests", type=int, default=20_000, help="Good requests of the load with faults."
    )


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the parts that `--only` selects, or tune the batching parameters."""
    with tempfile.TemporaryDirectory() as work:
        base, bodies = Path(work) / MODEL, Path(work) / "requests"
        base.mkdir()
        bodies.mkdir()
        images = photographs(IMAGES)
        if options.model is not None:
            shutil.copytree(options.model, base / "1")
        elif options.only not in SMALL_PARTS or options.tune is not None:
            export_model(base / "1", options.backbone, options.image_px, images)
        stage = Stage(
            base, options.engine, images, bodies, options.seconds, options.rounds, options.before
        )
        metrics: dict[str, Metric] = {}
        if options.tune is not None:
            load = stage.load
            metrics = tune(base, MODEL, options.engine, load, options.tune, options.rounds)
        else:
            for name, part in PARTS.items():
                if options.only in (name, "all"):
                    print(f"serving: measuring {name}", flush=True)
                    metrics |= part(stage)
            metrics |= small_parts(stage, Path(work) / "small" / MODEL, options)
    parts: tuple[str, ...] = (*PARTS, *SMALL_PARTS)
    if options.only != "all":
        metrics, parts = read_metrics(options.json) | metrics, (options.only,)
    model = options.model or f"{options.backbone} at {options.image_px} px"
    return Measurement(
        f"{model}, one JPEG per request, load from another process on the same machine, "
        f"{options.engine} server, {options.seconds:g} s per measurement, {options.rounds} rounds; "
        f"the memory test sends {options.requests} requests to the backbone `tiny` at 32 px, the "
        f"load with faults {options.load_requests}",
        metrics,
        () if options.tune is not None else parts,
    )


def small_parts(stage: Stage, base: Path, options: argparse.Namespace) -> dict[str, Metric]:
    """Measure with the backbone `tiny`, which serves many requests quickly.

    That is the growth of the memory, and the load with faults.
    """
    metrics: dict[str, Metric] = {}
    chosen = [name for name in SMALL_PARTS if options.only in (name, "all")]
    if chosen:
        base.mkdir(parents=True)
        export_model(base / "1", "tiny", 32, stage.images)
        write_labels(base)
    for name in chosen:
        print(f"serving: measuring {name}", flush=True)
        if name == "memory":
            metrics |= memory(
                base,
                MODEL,
                stage.engine,
                lambda at: stage.load("grpc", at, CONCURRENCY),
                options.requests,
            )
        else:
            metrics |= mixed_load(
                base,
                MODEL,
                stage.engine,
                lambda protocol, at: stage.load(protocol, at, CONCURRENCY),
                options.load_requests,
            )
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("serving", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
