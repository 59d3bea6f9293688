"""How well models recognize images that are unlike their training images.

Models of digits, of Fashion-MNIST and of tiles of photographs score the test images of their own
classes, each other's images, whole photographs, noise, and blurred digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy.special import logsumexp

from benchmarks.accuracy_images import PHOTOS, write_photos
from benchmarks.result import Metric

BACKBONE, IMAGE_PX = "efficientnet_lite0", 64
COUNT = 300
BLUR_PX = 6
PHOTO_TILES = 20


@dataclass(frozen=True)
class Sources:
    """A folder to write images to, and the folder of Fashion-MNIST; None is Debian's."""

    work: Path
    fashion: Path | None

    def digits(self) -> Path:
        """Return the folder of the digits, in class folders."""
        from components.ingest.sources.samples import write_digits

        return self._once("digits", write_digits)

    def fashion_images(self) -> Path:
        """Return the folder of 1,500 images of Fashion-MNIST of each split."""
        from components.ingest.sources.samples import write_fashion

        return self._once("fashion", lambda folder: write_fashion(folder, self.fashion, 1500))

    def tiles(self) -> Path:
        """Return the folder of tiles of 14 photographs, 20 of each to train with."""
        return self._once("tiles", lambda folder: write_photos(folder, PHOTO_TILES, seed=0))

    def photos(self) -> Path:
        """Return the folder of the whole photographs."""
        return self._once("photos", _write_photos)

    def noise(self) -> Path:
        """Return a folder of random pixels."""
        return self._once("noise", _write_noise)

    def blurred(self) -> Path:
        """Return a folder of heavily blurred digits."""
        return self._once("blurred", lambda folder: _write_blurred(self.digits(), folder))

    def _once(self, name: str, write: Callable[[Path], None]) -> Path:
        folder = self.work / name
        if not folder.exists():
            folder.mkdir(parents=True)
            write(folder)
        return folder


# The images that each model is trained with, and those that it has not seen.
MODELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "digits": ("digits", ("fashion_images", "tiles", "photos", "noise", "blurred")),
    "fashion": ("fashion_images", ("digits", "tiles", "photos", "noise")),
    "photos": ("tiles", ("digits", "fashion_images", "noise")),
}


def measure_familiarity(work: Path, fashion: Path | None) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics of each model; with Fashion-MNIST from a folder of its idx files."""
    sources = Sources(work / "images", fashion)
    for name, (own, others) in MODELS.items():
        dataset, candidate = _train(getattr(sources, own)(), work / name)
        folders = {other.removesuffix("_images"): getattr(sources, other)() for other in others}
        for key, metric in _compare(dataset, candidate, folders):
            print(f"{name}_{key} {metric.value:.4g} {metric.goal}", flush=True)
            yield f"familiarity_{name}_{key}", metric


def _train(images: Path, work: Path) -> tuple[Path, Path]:
    """Return the dataset and the candidate of a folder of images."""
    from components.extract_features.extract_features import extract_features
    from components.fine_tune.fine_tune import fine_tune
    from components.ingest.ingest import ingest
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.options.fine_tune import FineTuneOptions
    from regraft_core.formats.options.ingest import IngestOptions
    from regraft_core.formats.options.train_head import HeadOptions

    dataset, features, head = work / "dataset", work / "features", work / "head"
    ingest([str(images)], dataset, IngestOptions(near_duplicates="off", leakage="report"))
    options = FeatureOptions(backbone=BACKBONE, image_px=IMAGE_PX, keep_cut=False)
    extract_features(dataset, features, options)
    train_head([features], head, HeadOptions())
    fine_tune(dataset, [features], head, work / "candidate", FineTuneOptions(strategy="head"))
    return dataset, work / "candidate"


def _write_photos(folder: Path) -> None:
    import skimage.data

    for name in PHOTOS:
        image = Image.open(Path(skimage.data.__file__).parent / name)
        image.convert("RGB").save(folder / f"{Path(name).stem}.png")


def _write_noise(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


def _write_blurred(digits: Path, folder: Path) -> None:
    paths = sorted(digits.glob("*/*.png"))
    for path in paths[:: len(paths) // COUNT]:
        blurred = Image.open(path).filter(ImageFilter.GaussianBlur(BLUR_PX))
        blurred.save(folder / f"{path.parent.name}-{path.name}")


def _compare(
    dataset: Path, candidate: Path, folders: Mapping[str, Path]
) -> Iterator[tuple[str, Metric]]:
    """Yield for each folder the AUROC and the images below the threshold, and those of the energy.

    The energy is computed from the same logits, with a threshold from the test images, which
    favors it.
    """
    from components.evaluate.metrics.ood_images import read_ood_images
    from components.evaluate.metrics.ood_score import OodScores, fit_ood_threshold
    from components.evaluate.predict import build_runner, predict, predict_encoded
    from regraft_core.training.model_files import load_model
    from regraft_core.training.ood_detector import OodDetector

    model, manifest = load_model(candidate)
    detector = OodDetector.read(candidate, manifest.ood_detector)
    assert detector is not None
    runner = build_runner(model, manifest.preprocessing, detector)
    (test,) = predict(runner, dataset, ["test"], 64)
    for other, folder in folders.items():
        logits, scores = predict_encoded(runner, read_ood_images(str(folder)), 64)
        by_distance = OodScores(detector.validation_scores, test.ood_scores, scores)
        own = logsumexp(test.logits, axis=1)
        energy = OodScores(own, own, logsumexp(logits, axis=1))
        for suffix, compared, goal in (("", by_distance, ">= 0.95"), ("_energy", energy, "")):
            found = fit_ood_threshold(compared, 0.95)
            assert found is not None and found.auroc is not None
            assert found.rejected_fraction is not None
            yield f"{other}{suffix}_auroc", Metric(found.auroc, "", goal)
            yield f"{other}{suffix}_rejected", Metric(found.rejected_fraction)
    found = fit_ood_threshold(OodScores(detector.validation_scores, test.ood_scores), 0.95)
    assert found is not None and found.test_fraction is not None
    yield "test_kept", Metric(found.test_fraction, "", ">= 0.9")
