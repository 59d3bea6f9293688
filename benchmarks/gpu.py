"""A GPU: that runs work on it, share it, are reproducible, and predict there as they were verified.

    regraft bench gpu --json benchmarks/results/gpu.json
    regraft bench gpu --json benchmarks/results/gpu.json --keep runs/gpu --only run

Needs a card that nothing else uses, and about four minutes. `--only` takes the run of the digits
from the folder `--keep`. Each part runs in its own process:

- `doctor`: `regraft doctor`, which must find the card good.
- `run`: `regraft run digits --require-gpu` without any environment variable, while `nvidia-smi`
  reports the memory of the card; its log is searched for errors of graph optimization.
- `determinism`: extraction, head and `top` twice with `deterministic`, each time in a new process,
  must give the same files; once without, for the cost.
- `parity`: the served model of the run at several batch sizes against the trained one, without
  TF32, and for comparison with it.
- `logical_gpus`: one training on two logical GPUs takes the same steps as on one.

A part that fails, or for which the time of `--budget-s` is over, is named in the conditions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]
TWO_REPLICAS = CHECKOUT / "tests" / "regraft_core" / "training" / "mirrored_training.py"
SAMPLE_EVERY_S = 0.5
BATCHES = (1, 7, 32)
IMAGES = 64
TRAINED_EPOCHS = 3


class PartError(Exception):
    """A part of the benchmark failed; the message is one line."""


@dataclass
class Bench:
    """What the parts share: the folder, the time that is left, and what they found."""

    folder: Path
    ends_at: float
    on_cpu: bool = False
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        """The folder of the run of the digits."""
        return self.folder / "run"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with arguments until the time is over.

        Raises:
            PartError: it did not end in time.
        """
        try:
            return subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True,
                timeout=max(self.ends_at - time.monotonic(), 1.0), cwd=CHECKOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PartError("the time was over") from error

    def compute(self, function: Callable[..., dict[str, Any]], *arguments: str) -> dict[str, Any]:
        """Run a function of this module in a new process; return the dict that it returns."""
        code = (
            "import json, sys; from benchmarks import gpu; "
            f"print(json.dumps(gpu.{function.__name__}(*sys.argv[1:])))"
        )
        done = self.call("-c", code, *arguments)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise PartError(f"exit code {done.returncode}: {last[:300]}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found


def measure_doctor(bench: Bench) -> None:
    """Time `regraft doctor` and read what it says of the GPU."""
    start = time.monotonic()
    done = bench.call("-m", "regraft", "doctor", "--json")
    bench.metrics["doctor"] = Metric(time.monotonic() - start, "s", "<= 20")
    findings = json.loads(done.stdout)["findings"]
    found = [one for one in findings if one["name"].startswith("GPU")]
    good = bool(found) and all(one["state"] == "good" for one in found)
    bench.metrics["doctor_gpu_good"] = Metric(float(good), "", ">= 1")
    bench.notes += [f"{one['name']}: {one['found']}" for one in found]


@contextlib.contextmanager
def sampling_memory() -> Iterator[list[int]]:
    """Yield a list that receives the memory in use on the card, in MB, twice a second."""
    samples: list[int] = []
    done = threading.Event()
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def sample() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
                text = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
                samples.append(sum(map(int, text.split())))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def measure_run(bench: Bench) -> None:
    """Run the digits on the card."""
    out = bench.run_folder
    start = time.monotonic()
    with sampling_memory() as samples:
        required = () if bench.on_cpu else ("--require-gpu",)
        done = bench.call("-m", "regraft", "run", "digits", *required, "--out", str(out))
    bench.metrics["run_exit_code"] = Metric(done.returncode, "", "<= 0")
    bench.metrics["run"] = Metric(time.monotonic() - start, "s")
    if samples:
        bench.metrics["run_peak_gpu_memory"] = Metric(max(samples), "MB", "<= 4096")
    log = out / "run.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    failed = sum("layout failed" in line for line in text.splitlines())
    bench.metrics["run_layout_errors"] = Metric(failed, "", "<= 0")
    if done.returncode:
        (bench.folder / "run.err").write_text(done.stderr, encoding="utf-8")
        raise PartError((done.stderr.strip().splitlines() or ["no output"])[-1][:300])
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    accuracies = summary["metrics"]
    accuracy = accuracies["test_accuracy"]
    half_interval = (accuracies["test_accuracy_high"] - accuracies["test_accuracy_low"]) / 2
    bench.metrics |= {
        "run_test_accuracy": Metric(accuracy, "", ">= 0.97"),
        "run_parity": Metric(max(summary["parity"].values()), "probability", "<= 1e-5"),
        **{f"run_{step}": Metric(value, "s") for step, value in summary["timings"].items()},
    }
    on_cpu = read_metrics(CHECKOUT / "benchmarks" / "results" / "demo.json").get("test_accuracy")
    if on_cpu:
        goal = f"<= {half_interval:.4g}"
        bench.metrics["accuracy_difference_to_cpu"] = Metric(abs(accuracy - on_cpu.value), "", goal)
    bench.notes += [_parity_record(out)]


def _parity_record(out: Path) -> str:
    found = max((out / "steps").rglob("parity.json"), key=lambda path: path.stat().st_mtime)
    record = json.loads(found.read_text(encoding="utf-8"))
    return (
        f"verified on {record['device']} in {record['precision']}, batches {record['batches']}, "
        f"verified {record['verified']}"
    )


def train_once(dataset: str, out: str, deterministic: str) -> dict[str, Any]:
    """Extract features, train a head and `top`; return digests and seconds."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.train_head.train_head import train_head
    from regraft_core.formats.manifest_storage import digest_file, digest_of
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.train_head import HeadOptions

    folder, chosen = Path(out), {"deterministic": deterministic == "1"}
    start = time.perf_counter()
    features = FeatureOptions(backbone="efficientnet_lite0", image_px=64, views=2, augment="light",
                              **chosen)  # fmt: skip
    with contextlib.redirect_stdout(sys.stderr):
        extract_features(dataset, folder / "features", features)
        extracted = time.perf_counter()
        train_head([folder / "features"], folder / "head", HeadOptions(**chosen))
        options = FineTuneOptions(
            strategy="top", fine_tune_epochs=TRAINED_EPOCHS, learning_rate=1e-3,
            batch_norm="adapt", **chosen,
        )  # fmt: skip
        model = fine_tune(
            dataset, [folder / "features"], folder / "head", folder / "candidate", options
        )
    arrays = sorted((folder / "features").glob("*.npy"))
    return {
        "features": digest_of([digest_file(file) for file in arrays]),
        "model": _weights_digest(folder / "candidate"),
        "loss": repr(model.history[-1].loss),
        "extraction_s": extracted - start,
        "training_s": time.perf_counter() - extracted,
        "epoch_s": statistics.median(epoch.seconds for epoch in model.history[-TRAINED_EPOCHS:]),
    }


def _weights_digest(folder: Path) -> str:
    """Return the digest of a model's weights; the file itself contains times."""
    from regraft_core.backbones.build import weights_digest
    from regraft_core.training.model_files import load_model

    return weights_digest(load_model(folder)[0])


def measure_determinism(bench: Bench) -> None:
    """Train twice with determinism and once without."""
    dataset = json.loads((bench.run_folder / "summary.json").read_text())["dataset"]
    runs = {}
    for name in ("first", "plain", "second"):
        chosen = "0" if name == "plain" else "1"
        runs[name] = bench.compute(train_once, dataset, str(bench.folder / name), chosen)
        print(f"gpu: determinism {name}: {runs[name]}", file=sys.stderr, flush=True)
    first, second, plain = runs["first"], runs["second"], runs["plain"]
    for part in ("features", "model"):
        same = float(first[part] == second[part])
        bench.metrics[f"deterministic_same_{part}"] = Metric(same, "", ">= 1")
        bench.metrics[f"plain_same_{part}"] = Metric(float(first[part] == plain[part]))
    for part in ("extraction_s", "training_s", "epoch_s"):
        name = part.removesuffix("_s")
        bench.metrics[f"deterministic_{name}"] = Metric(first[part], "s")
        bench.metrics[f"plain_{name}"] = Metric(plain[part], "s")


def compare_batches(run: str) -> dict[str, Any]:
    """Return the largest difference of served from trained probabilities, by batch size."""
    import numpy as np
    import tensorflow as tf

    from regraft_core.formats.manifests.evaluation import EvaluationManifest
    from regraft_core.formats.manifests.model import ModelManifest
    from regraft_core.formats.records import read_split
    from regraft_core.images.preprocess import load_images, scale
    from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
    from regraft_core.training.model_files import load_model
    from serving.server.models.servable import load_servable

    set_up_gpus(GpuSetup(tf32=False))
    summary = json.loads((Path(run) / "summary.json").read_text(encoding="utf-8"))
    evaluation = EvaluationManifest.read(summary["evaluation"])
    folder = next(
        path.parent for path in (Path(run) / "steps").rglob(ModelManifest.file_name)
        if json.loads(path.read_text())["digest"] == evaluation.model_digest
    )  # fmt: skip
    model, manifest = load_model(folder)
    images = [record.encoded for record in read_split(summary["dataset"], "test")][:IMAGES]
    pixels = load_images(tf.constant(images), manifest.preprocessing.image_px)
    inputs = scale(pixels, manifest.preprocessing.scaling)
    differences: dict[str, float] = {}
    for name, tf32 in (("float32", False), ("tf32", True)):
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        batches = [inputs[first : first + 32] for first in range(0, len(images), 32)]
        logits = np.concatenate([model(batch, training=False).numpy() for batch in batches])
        expected = tf.nn.softmax(logits / evaluation.temperature).numpy()
        servable = load_servable(summary["saved_model"])  # kernels chosen with TF32 must not stay
        signature = servable.signatures["serving_default"]
        (feed,) = (spec.tensor for spec in signature.inputs.values())
        fetch = signature.outputs["probabilities"].tensor
        for size in BATCHES:
            parts = [
                servable.run({feed: np.array(images[first : first + size], object)}, [fetch])[0]
                for first in range(0, len(images), size)
            ]
            difference = float(np.abs(np.concatenate(parts) - expected).max())
            differences[f"{name}_batch_{size}"] = difference
        servable.close()
    return differences


def measure_parity(bench: Bench) -> None:
    """Compare the served model of the run with the trained one at several batch sizes."""
    found = bench.compute(compare_batches, str(bench.run_folder))
    for name, value in found.items():
        goal = "<= 1e-5" if name.startswith("float32") else ""
        bench.metrics[f"parity_{name}"] = Metric(value, "probability", goal)


def measure_logical_gpus(bench: Bench) -> None:
    """Train on one and on two logical GPUs."""
    import numpy as np

    out = bench.folder / "replicas.npz"
    done = bench.call(str(TWO_REPLICAS), str(out), "CPU" if bench.on_cpu else "GPU")
    if done.returncode:
        raise PartError((done.stderr.strip().splitlines() or ["no output"])[-1][:300])
    with np.load(out) as arrays:
        values = [arrays[name] for name in arrays.files]
    one, two = values[: len(values) // 2], values[len(values) // 2 :]
    worst = max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True))
    bench.metrics["logical_gpus_max_abs_diff"] = Metric(worst, "", "<= 1e-4")


MEASURES: dict[str, Callable[[Bench], None]] = {
    "doctor": measure_doctor,
    "run": measure_run,
    "parity": measure_parity,
    "logical_gpus": measure_logical_gpus,
    "determinism": measure_determinism,
}


def card() -> str:
    """Return the name of the card and its driver."""
    from regraft_core.runtime.nvidia_smi import read_driver

    driver = read_driver()
    if driver is None:
        return "no NVIDIA driver"
    names = ", ".join(one.name for one in driver.cards) or "no card"
    cuda = ".".join(map(str, driver.cuda))
    return f"{names}; driver {driver.version} for CUDA {cuda}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--only", choices=MEASURES, help="Measure only this part.")
    parser.add_argument("--budget-s", type=float, default=280.0, help="Seconds for all parts.")
    parser.add_argument("--cpu", action="store_true", help="Rehearse without a GPU.")
    parser.add_argument("--keep", type=Path, help="Folder for the run and the models.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the parts one after another, as far as the time allows."""
    chosen = [options.only] if options.only else list(MEASURES)
    with tempfile.TemporaryDirectory(prefix="regraft-gpu-") as work:
        folder = options.keep or Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder.absolute(), time.monotonic() + options.budget_s, options.cpu)
        for name in chosen:
            start = time.monotonic()
            try:
                MEASURES[name](bench)
            except (PartError, OSError, ValueError, KeyError) as error:
                bench.notes.append(f"{name} failed: {error}")
            print(f"gpu: {name} took {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
            text = {key: asdict(value) for key, value in bench.metrics.items()}
            (folder / "so-far.json").write_text(json.dumps([text, bench.notes], indent=1))
    conditions = "; ".join([card(), *bench.notes])
    return Measurement(conditions, read_metrics(options.json) | bench.metrics)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("gpu", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()
