"""Regraft in Python: run the pipeline, load a model, predict images, serve.

    import regraft

    run = regraft.run("images/", out="runs/pets", backbone="efficientnet_lite0")
    model = regraft.load("runs/pets")
    for prediction in model.predict(["a.jpg", some_bytes, pil_image, numpy_array]):
        print(prediction.label, prediction.confidence)
    with regraft.serve("runs/pets") as server:
        print(server.rest, server.grpc)

Importing it is quick: TensorFlow and kfp are imported when a function needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.array_source import from_arrays
    from regraft.image_inputs import ImageError
    from regraft.model import Model, load
    from regraft.server import Server, serve
    from regraft.training_run import Run, run
    from regraft_client.results import Prediction
    from regraft_core.runtime.errors import DataError, InputError, RegraftError, RejectedError

    __version__: str

__all__ = [
    "DataError",
    "ImageError",
    "InputError",
    "Model",
    "Prediction",
    "RegraftError",
    "RejectedError",
    "Run",
    "Server",
    "__version__",
    "from_arrays",
    "load",
    "run",
    "serve",
]

_MODULES = {
    "DataError": "regraft_core.runtime.errors",
    "ImageError": "regraft.image_inputs",
    "InputError": "regraft_core.runtime.errors",
    "Model": "regraft.model",
    "Prediction": "regraft_client.results",
    "RegraftError": "regraft_core.runtime.errors",
    "RejectedError": "regraft_core.runtime.errors",
    "Run": "regraft.training_run",
    "Server": "regraft.server",
    "VERSION": "regraft_core.runtime.version",
    "from_arrays": "regraft.array_source",
    "load": "regraft.model",
    "run": "regraft.training_run",
    "serve": "regraft.server",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        return __getattr__("VERSION")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
