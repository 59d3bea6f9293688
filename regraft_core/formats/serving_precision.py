"""The precisions that an exported model may be served in, and whether a processor has them."""

from __future__ import annotations

from pathlib import Path

from regraft_core.formats.manifests import SavedModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.machine import computes_bfloat16, processor_name


def check_processor(option: str) -> None:
    """Check that this processor computes in bfloat16.

    Raises:
        InputError: it does not; others take several times as long as in float32.
    """
    if not computes_bfloat16():
        raise InputError(
            f"{option}: expected a processor that computes in bfloat16 (avx512_bf16, amx_bf16), "
            f"got {processor_name() or 'an unknown one'}; use float32"
        )


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
