"""Checks of a recipe that need no data, so that a run fails before it starts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from pipelines.recipes.recipe import Recipe
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri


def check_backbone(recipe: Recipe) -> None:
    """Check that the backbone has the cut point of the recipe; similar names are suggested.

    Raises:
        InputError: the backbone has no such cut point, or needs larger images.
    """
    if recipe.cut == "auto":
        return  # default cuts are tested, and TensorFlow takes seconds to load
    with quiet_start():
        from regraft_core.backbones.build import build_backbone
        from regraft_core.backbones.cuts import find_cut

        set_up_gpus(GpuSetup())  # otherwise this process would take the card from the steps
        model = build_backbone(recipe.backbone, recipe.image_px, "random")
    find_cut(model, recipe.cut)


def check_destination(recipe: Recipe) -> None:
    """Check that this machine has the packages to open the destination; no request is sent.

    Raises:
        InputError: the scheme of the URI is unknown, or its packages are missing.
    """
    if is_store_uri(recipe.destination):
        open_store_uri(recipe.destination)


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Discard what TensorFlow writes to standard error while it loads.

    Its libraries ignore the log level until they are initialized.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
