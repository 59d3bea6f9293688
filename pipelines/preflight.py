"""What can be known to fail before any data is read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from pipelines.recipes.recipe import Recipe
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri


def check_backbone(recipe: Recipe) -> None:
    """Check a cut that was named against the backbone's graph; near names are suggested.

    Raises:
        InputError: the backbone has no such cut point, or is too large for the images.
    """
    if recipe.cut == "auto":
        return  # the table's own cuts are tested, and TensorFlow takes seconds to load
    with quiet_start():
        from regraft_core.backbones.build import build_backbone
        from regraft_core.backbones.cuts import find_cut

        model = build_backbone(recipe.backbone, recipe.image_px, "random")
    find_cut(model, recipe.cut)


def check_destination(recipe: Recipe) -> None:
    """Check that this machine can open the place of publication, of which nothing is asked yet.

    Raises:
        InputError: its scheme is not known, or needs packages that are missing.
    """
    if is_store_uri(recipe.destination):
        open_store_uri(recipe.destination)


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Drop what TensorFlow's libraries write to standard error while they load.

    They ignore their own log level until they are initialized.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
