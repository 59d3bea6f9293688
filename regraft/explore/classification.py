"""`regraft classify`: what a pretrained model sees in files, folders and addresses of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.preflight import quiet_start
from regraft_core.backbones.build import build_classifier
from regraft_core.backbones.table import Backbone, find_backbone
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError

if TYPE_CHECKING:
    from regraft.explore.imagenet import Guess

BATCH_SIZE = 16
MAX_IMAGE_BYTES = 64 << 20
# An image is small: what does not come soon does not come.
DOWNLOAD = IngestOptions(download_timeout_s=15.0, download_deadline_s=60.0, download_attempts=3)


@dataclass(frozen=True)
class Classified:
    """What came of one image: guesses, best first, or the reason why there are none."""

    image: str
    guesses: list[Guess]
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        guesses = [
            {
                "class": guess.imagenet_class.index,
                "wordnet": guess.imagenet_class.wordnet,
                "names": list(guess.imagenet_class.names),
                "probability": round(guess.probability, 6),
            }
            for guess in self.guesses
        ]
        return {"image": self.image, "guesses": guesses, "error": self.error or None}


def classify_images(
    sources: Sequence[str],
    backbone: str,
    weights: str,
    top: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Classified]:
    """Classify the images that are given, that lie in given folders or at given addresses.

    Raises:
        InputError: unknown backbone, weights that cannot be had, or a path where nothing is.
    """
    row = find_backbone(backbone)
    images = find_all(sources)
    with quiet_start():
        import regraft.explore.imagenet  # noqa: F401  # TensorFlow loads here
    model = build_classifier(row, weights)
    found: list[Classified] = []
    for start in range(0, len(images), BATCH_SIZE):
        found += _classify_batch(model, row, images[start : start + BATCH_SIZE], top)
        if progress:
            progress(len(found), len(images))
    return found


def find_all(sources: Sequence[str]) -> list[str]:
    """Return addresses as they are, files, and the images below folders, in the given order.

    Raises:
        InvalidInputError: a path does not exist, or a folder has no image.
    """
    from regraft_client.predict_files import find_images

    found: list[str] = []
    for source in sources:
        found += [source] if "://" in source else map(str, find_images([source]))
    return found


def read_image(image: str) -> bytes:
    """Return the bytes of an image; an address is given `DOWNLOAD`'s time.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    from components.ingest.sources.http import read_address
    from components.ingest.sources.object_store import read_object

    if image.startswith(("http://", "https://")):
        return read_address(image, DOWNLOAD, MAX_IMAGE_BYTES)
    if "://" in image:
        return read_object(image, DOWNLOAD, MAX_IMAGE_BYTES)
    try:
        with open(image, "rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}") from error
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(f"expected at most {MAX_IMAGE_BYTES} bytes, got more")
    return data


def _classify_batch(model: Any, row: Backbone, images: list[str], top: int) -> list[Classified]:
    """Classify images together; those that cannot be read are told apart."""
    from regraft.explore.imagenet import classify, load

    ready, errors = {}, {}
    for image in images:
        try:
            ready[image] = load(read_image(image), row.image_px)
        except InputError as error:
            errors[image] = str(error)
    answers = classify(model, row, list(ready.values()), top) if ready else []
    guesses = dict(zip(ready, answers, strict=True))
    return [Classified(p, guesses.get(p, []), errors.get(p, "")) for p in images]
