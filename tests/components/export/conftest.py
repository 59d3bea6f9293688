from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from kfp.dsl import Artifact, Dataset, Model

from components.export.component import export
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from tests.components.export.building import Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def exported(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as the component exports it."""
    out = tmp_path_factory.mktemp("exported") / "saved_model"
    given = (
        Model(uri=str(built.candidate)),
        Artifact(uri=str(built.evaluation)),
        Dataset(uri=str(built.dataset)),
    )
    saved_model = Model(uri=str(out))
    export.python_func({}, *given, saved_model)
    manifest = SavedModelManifest.read(out)
    assert saved_model.metadata == {"digest": manifest.digest, "strategy": manifest.strategy}
    return out


@pytest.fixture(scope="session")
def loaded(exported: Path) -> tf.Module:
    return tf.saved_model.load(str(exported))
