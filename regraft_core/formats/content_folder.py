"""Outputs of local steps, in folders named by their content.

kfp caches a step by the paths of its inputs. If equal content is always at the same path, a later
run reuses what was computed from it, and other content is computed again. On a cluster an artifact
must stay in the folder of its run, and does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

FOLDER = "by_content"


def kept_folder(artifact: Any) -> Path:
    """Return the folder of all outputs that local runs keep by content.

    Args:
        artifact: a kfp artifact; its own folder is three levels below that of all runs.
    """
    return Path(artifact.path).parents[2] / FOLDER


def keep_by_content(artifact: Any, digest: str) -> None:
    """Move a local step's output to a folder named by its content, and point the artifact there.

    Args:
        artifact: a kfp artifact, as for `kept_folder`.
        digest: the digest of the content, as long as the folder's name shall be.
    """
    if "://" in artifact.uri:
        return
    folder = Path(artifact.path)
    kept = kept_folder(artifact) / f"{folder.name}-{digest}"
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():  # parts that the digest leaves out may be newer in the new folder
        old = kept.with_name(f".{kept.name}.{os.getpid()}")
        kept.rename(old)
        folder.rename(kept)
        shutil.rmtree(old)
    else:
        folder.rename(kept)
    artifact.uri = str(kept)
