"""`regraft classify`: predictions of a pretrained model for image files, folders and URLs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft_core.backbones.backbone_table import Backbone, find_backbone, is_location
from regraft_core.backbones.build import build_classifier
from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.quiet_start import quiet_start

if TYPE_CHECKING:
    from regraft.explore.imagenet import ImagenetPrediction

BATCH_SIZE = 16
MAX_IMAGE_BYTES = 64 << 20
# Images are small, so a download that takes longer has failed.
DOWNLOAD = IngestOptions(download_timeout_s=15.0, download_deadline_s=60.0, download_attempts=3)


@dataclass(frozen=True)
class ClassifiedImage:
    """One image with its predictions, most probable first, or an error."""

    image: str
    predictions: list[ImagenetPrediction]
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the value that `--json` prints."""
        predictions = [
            {
                "class": prediction.imagenet_class.index,
                "wordnet": prediction.imagenet_class.wordnet,
                "names": list(prediction.imagenet_class.names),
                "probability": round(prediction.probability, 6),
            }
            for prediction in self.predictions
        ]
        return {"image": self.image, "predictions": predictions, "error": self.error or None}


def classify_images(
    sources: Sequence[str],
    backbone: str,
    weights: str,
    top_k: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[ClassifiedImage]:
    """Classify image files, the images in folders, and images at URLs.

    Args:
        sources: paths and URLs.
        backbone: the name of a pretrained model.
        weights: `imagenet`, or a file of weights.
        top_k: the number of classes per image.
        progress: is called with the numbers of classified and of all images.

    Raises:
        InputError: unknown backbone, missing weights, or a path that does not exist.
    """
    if is_location(backbone):
        raise InputError(
            f"backbone: expected a name of the table, whose networks have ImageNet's classes, got "
            f"{short_name(backbone)}; train a model with it by `regraft run --backbone`"
        )
    row = find_backbone(backbone)
    images = find_images(sources)
    with quiet_start():
        set_up_gpus(GpuSetup(tf32=False))
    model = build_classifier(row, weights)
    found: list[ClassifiedImage] = []
    for start in range(0, len(images), BATCH_SIZE):
        found += _classify_batch(model, row, images[start : start + BATCH_SIZE], top_k)
        if progress:
            progress(len(found), len(images))
    return found


def find_images(sources: Sequence[str]) -> list[str]:
    """Return URLs and files as they are, and the images in folders, in the given order.

    Raises:
        InvalidInputError: a path does not exist, or a folder has no image.
    """
    from regraft_client.predict_files import find_images as find_local

    found: list[str] = []
    for source in sources:
        found += [source] if is_remote(source) else map(str, find_local([str(local_path(source))]))
    return found


def read_image(image: str) -> bytes:
    """Return the bytes of an image file or URL; `DOWNLOAD` limits the time.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    from components.ingest.sources.download import read_url
    from regraft_client.image_files import to_served

    if is_remote(image):
        return to_served(read_url(image, DOWNLOAD, MAX_IMAGE_BYTES))
    try:
        with open(image, "rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(f"expected at most {MAX_IMAGE_BYTES} bytes, got more")
    return to_served(data)


def _classify_batch(
    model: Any, row: Backbone, images: list[str], top_k: int
) -> list[ClassifiedImage]:
    """Classify the images that can be read; the others get an error."""
    from regraft.explore.imagenet import classify, decode

    decoded, errors = {}, {}
    for image in images:
        try:
            decoded[image] = decode(read_image(image), row.image_px)
        except InputError as error:
            errors[image] = str(error)
    results = classify(model, row, list(decoded.values()), top_k) if decoded else []
    predictions = dict(zip(decoded, results, strict=True))
    return [ClassifiedImage(p, predictions.get(p, []), errors.get(p, "")) for p in images]
