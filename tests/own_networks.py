"""Files of networks that are not built: `.keras` files with a configuration only."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any


def layer(kind: str, **config: Any) -> dict[str, Any]:
    """Return the configuration of a layer of Keras."""
    name = kind.lower()
    return {"module": "keras.layers", "class_name": kind, "config": {"name": name, **config}}


def sequential(*layers: dict[str, Any], shape: Any = (None, 24, 24, 3)) -> dict[str, Any]:
    """Return the configuration of a sequential model."""
    first = layer("InputLayer", batch_shape=list(shape))
    return layer("Sequential", layers=[first, *layers])


def write_network(path: Path, config: Any) -> str:
    """Write a `.keras` file without weights; return its path as the name of a backbone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config))
    return str(path)
