"""A head with which any further training is an improvement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.conftest import Trained


@pytest.fixture(scope="session")
def weak_head(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that knows nothing, so that any further training is an improvement."""
    from regraft_core.training.model_files import load_model, save_model

    out = tmp_path_factory.mktemp("weak") / "head"
    out.mkdir()
    model, manifest = load_model(trained.head)
    kernel, bias = model.get_layer("logits").get_weights()
    rng = np.random.default_rng(0)
    model.get_layer("logits").set_weights([rng.normal(0, 1e-3, kernel.shape), 0 * bias])
    changed = {"digest": save_model(model, out), "validation_loss": float(np.log(3)),
               "validation_accuracy": 0.0, "head": manifest.head | {"refit": None},
               "ood_detector": None}  # fmt: skip
    manifest.model_copy(update=changed).write(out)
    return out
