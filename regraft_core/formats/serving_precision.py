"""The precisions that a published version may be served in."""

from __future__ import annotations

from pathlib import Path

from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError


def check_version(folder: Path) -> None:
    """Check that a published version may be served in bfloat16.

    Raises:
        InputError: it was exported, and so verified, for float32 only.
    """
    if "bfloat16" not in SavedModelManifest.read(folder).serving_precisions:
        raise InputError(
            f"--mixed-precision: expected versions that were verified in bfloat16, got "
            f"{folder.parent.name} version {folder.name}; run it with --serving-precision bfloat16"
        )
