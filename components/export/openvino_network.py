"""The network of an exported model as a file for OpenVINO, with which the embedded server computes.

Whether its predictions are those of the model is for `verify` to prove.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft_core.formats.openvino_files import NETWORK_FILE
from regraft_core.runtime.openvino_models import EngineError, load_network, write_network
from regraft_core.runtime.step_reports import log_progress


def write_for_openvino(folder: Path, network: Any) -> bool:
    """Write the network into an exported model; return whether OpenVINO can compute it.

    Args:
        folder: the SavedModel.
        network: the concrete function of the graph that computes it.
    """
    path = folder / NETWORK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_network(path, network)
        load_network(path, "")
    except EngineError as error:
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        log_progress(
            f"export: OpenVINO cannot compute this network, so TensorFlow serves it: {error}"
        )
        return False
    return True
