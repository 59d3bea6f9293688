"""The engines that a published version may be served with."""

from __future__ import annotations

from pathlib import Path

from regraft_core.formats.engine_packages import check_engine_package
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.errors import InputError, RegraftError

SERVING_ENGINES = ("auto", "tf", "openvino")


def check_serving_engine(name: str, option: str) -> None:
    """Check that this is an engine, and that its package is installed here.

    Raises:
        InputError: it is not.
    """
    if name not in SERVING_ENGINES:
        raise InputError(f"{option}: expected {', '.join(SERVING_ENGINES)}, got {name}")
    check_engine_package(name, "serving-engine")


def may_use_openvino(folder: Path, half: str) -> bool:
    """Return whether an exported model was verified with OpenVINO.

    Args:
        folder: of the model, which may be one that Regraft has not exported.
        half: `bfloat16`, or "" for float32.
    """
    try:
        manifest = SavedModelManifest.read(folder)
    except RegraftError:
        return False
    return "openvino" in manifest.serving_engines and (half or "float32") in (
        manifest.serving_precisions
    )
