"""`regraft classify`: what a pretrained model sees in files, folders and addresses of pictures."""

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
MAX_PICTURE_BYTES = 64 << 20
# A picture is small: what does not come soon does not come.
DOWNLOAD = IngestOptions(timeout_s=15.0, deadline_s=60.0, attempts=3)


@dataclass(frozen=True)
class Classified:
    """What came of one picture: guesses, best first, or the reason why there are none."""

    picture: str
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
        return {"picture": self.picture, "guesses": guesses, "error": self.error or None}


def classify_pictures(
    sources: Sequence[str],
    backbone: str,
    weights: str,
    top: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Classified]:
    """Classify the pictures that are given, that lie in given folders or at given addresses.

    Raises:
        InputError: unknown backbone, weights that cannot be had, or a path where nothing is.
    """
    row = find_backbone(backbone)
    pictures = find_all(sources)
    with quiet_start():
        import regraft.explore.imagenet  # noqa: F401  # TensorFlow loads here
    model = build_classifier(row, weights)
    found: list[Classified] = []
    for start in range(0, len(pictures), BATCH_SIZE):
        found += _classify_batch(model, row, pictures[start : start + BATCH_SIZE], top)
        if progress:
            progress(len(found), len(pictures))
    return found


def find_all(sources: Sequence[str]) -> list[str]:
    """Return addresses as they are, files, and the pictures below folders, in the given order.

    Raises:
        InputError: a path does not exist, or a folder has no picture.
    """
    from regraft_client.predict_files import find_pictures

    found: list[str] = []
    for source in sources:
        found += [source] if "://" in source else map(str, find_pictures([source]))
    return found


def read_picture(picture: str) -> bytes:
    """Return the bytes of a picture; an address is given `DOWNLOAD`'s time.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    from components.ingest.sources.http import read_address
    from components.ingest.sources.object_store import read_object

    if picture.startswith(("http://", "https://")):
        return read_address(picture, DOWNLOAD, MAX_PICTURE_BYTES)
    if "://" in picture:
        return read_object(picture, DOWNLOAD, MAX_PICTURE_BYTES)
    try:
        with open(picture, "rb") as file:
            data = file.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}") from error
    if len(data) > MAX_PICTURE_BYTES:
        raise InputError(f"expected at most {MAX_PICTURE_BYTES} bytes, got more")
    return data


def _classify_batch(model: Any, row: Backbone, pictures: list[str], top: int) -> list[Classified]:
    """Classify pictures together; those that cannot be read are told apart."""
    from regraft.explore.imagenet import classify, load

    ready, errors = {}, {}
    for picture in pictures:
        try:
            ready[picture] = load(read_picture(picture), row.image_px)
        except InputError as error:
            errors[picture] = str(error)
    answers = classify(model, row, list(ready.values()), top) if ready else []
    guesses = dict(zip(ready, answers, strict=True))
    return [Classified(p, guesses.get(p, []), errors.get(p, "")) for p in pictures]
