"""The folder of a run with known problems in its data; no model is trained for it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from components.ingest.ingest import ingest
from pipelines.local.run import Summary
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import MadeBy, digest_file
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest, Parameters, Preprocessing
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.records import read_records
from regraft_core.formats.store_records import EntryOrigin, record_origin
from regraft_core.training.feature_store import GROUPS, LABELS, array_file

CLASSES = ("blue", "green", "red")
PER_CLASS, PX = 24, 64
MADE_BY = MadeBy(step="test", version="0", seconds=0.0)
ENTRIES = {kind: f"{kind}-{'0' * 32}" for kind in
           ("dataset", "features", "head", "candidates", "evaluation")}  # fmt: skip
MEMBER = {
    "levels": "gap", "scaling": "level", "method": "ridge", "penalty": 1e-3, "loss": 0.1,
    "accuracy": 0.9, "temperature": 0.1, "rows": 48, "accuracy_low": 0.8, "accuracy_high": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class ReviewableRun:
    """A run; `flipped` are the true classes of images with another label, by path.

    `copy` is a near duplicate of `copied` with another label.
    """

    folder: Path
    dataset: Path
    features: Path
    head: Path
    flipped: dict[str, str]
    copy: str
    copied: str
    dark: str
    outlier: str


def build_run(folder: Path) -> ReviewableRun:
    """Write the images, their dataset, features that show the true classes, a head, a summary."""
    images, store = folder / "images", ContentStore(str(folder / "run/steps/by_content"))
    flipped = {"blue/red-00.png": "red", "red/green-01.png": "green"}
    copied, copy, dark, outlier = (
        "red/red-05.png",
        "blue/red-05.png",
        "blue/dark.png",
        "green/far.png",
    )
    for number, name in enumerate(CLASSES):
        (images / name).mkdir(parents=True)
        for k in range(PER_CLASS):
            noise(1000 * number + k).save(images / name / f"{name}-{k:02}.png")
    for path, true_class in flipped.items():
        (images / true_class / Path(path).name).rename(images / path)
    with Image.open(images / copied) as image:
        Image.fromarray(np.asarray(image) // 2 * 2).save(images / copy)
    Image.fromarray(np.asarray(noise(7777)) // 16).save(images / dark)
    noise(8888).save(images / outlier)
    at = {kind: Path(store.location(name)) for kind, name in ENTRIES.items()}
    data = ingest([str(images)], at["dataset"], IngestOptions(processes=1, test_fraction=0.1))
    shards = _write_features(data, at["dataset"], at["features"], outlier)
    _write_manifests(data, shards, at)
    for kind, inputs in {
        "features": ["dataset"], "head": ["features"],
        "candidates": ["dataset", "features", "head"], "evaluation": ["candidates", "dataset"],
    }.items():  # fmt: skip
        origin = EntryOrigin(step=kind, options="0", inputs=[ENTRIES[one] for one in inputs])
        record_origin(store, ENTRIES[kind], origin)
    _write_summary(folder / "run", at, data)
    return ReviewableRun(
        folder / "run", at["dataset"], at["features"], at["head"], flipped, copy, copied, dark,
        outlier,
    )  # fmt: skip


def noise(seed: int) -> Image.Image:
    """Return a colorful smooth image with fine noise, dissimilar to that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((PX, PX), Image.Resampling.BICUBIC))
    return Image.fromarray(smooth + rng.integers(0, 55, smooth.shape, dtype=np.uint8))


def _write_features(
    data: DatasetManifest, dataset: Path, folder: Path, outlier: str
) -> list[FeatureShard]:
    """Write features [n, 8] that are near an axis of the class that a file is named by."""
    folder.mkdir(parents=True)
    written = []
    for split in ("train", "validation"):
        for shard in data.splits[split].shards:
            stem = f"{shard.file.removesuffix('.tfrecord')}.view0"
            records = list(read_records(dataset / shard.file))
            values = np.stack([_features(record.path, outlier) for record in records])
            for name, array in {
                "gap": values, LABELS: np.array([r.label for r in records], np.int32),
                GROUPS: np.array([r.group for r in records], np.int64),
            }.items():  # fmt: skip
                np.save(array_file(folder, stem, name), array)
            digests = {name: digest_file(array_file(folder, stem, name))
                       for name in ("gap", LABELS, GROUPS)}  # fmt: skip
            written.append(FeatureShard(stem=stem, split=split, view=0, count=len(records),
                                        sha256=digests))  # fmt: skip
    return written


def _features(path: str, outlier: str) -> np.ndarray:
    name = Path(path).stem
    rng = np.random.default_rng(list(name.encode()))
    values = rng.normal(0, 0.3, 8)
    values[CLASSES.index(name.split("-")[0]) if "-" in name else 3] += 3.0
    return values * (20 if path == outlier else 1)


def _write_manifests(
    data: DatasetManifest, shards: list[FeatureShard], at: dict[str, Path]
) -> None:
    FeaturesManifest(
        digest="f", made_by=MADE_BY, dataset_digest=data.digest, classes=data.classes,
        backbone="tiny", weights="random", weights_digest="w", image_px=32, cut=None, views=1,
        augment="off", seed=0, dtype="float32", arrays={"gap": [8]}, feature_map=[1, 1, 8],
        shard_index=0, shard_count=1, shards=shards,
    ).write(at["features"])  # fmt: skip
    at["head"].mkdir()
    ModelManifest(
        digest="h", made_by=MADE_BY, kind="head", strategy="head", requested_strategy="head",
        backbone="tiny", weights="random", weights_digest="w",
        preprocessing=Preprocessing(image_px=32, scaling="none"), classes=data.classes,
        dataset_digest=data.digest, cut=None,
        head={"pooling": "gap", "levels": [], "members": [MEMBER]},
        options=HeadOptions().model_dump(),
        parameters=Parameters(total=1, trainable=1, frozen=0), head_parameters={}, history=[],
        validation_accuracy=0.9, validation_loss=0.1,
    ).write(at["head"])  # fmt: skip


def _write_summary(run: Path, at: dict[str, Path], data: DatasetManifest) -> None:
    summary = Summary(
        verdict="rejected", reasons=[], strategy="head", model_version=None, saved_model=None,
        published=None, metrics={}, parity={}, timings={}, report=str(at["evaluation"] / "r.html"),
        dataset_digest=data.digest, dataset=str(at["dataset"]), evaluation=str(at["evaluation"]),
    )  # fmt: skip
    (run / "summary.json").write_text(summary.model_dump_json())


def png(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
