from __future__ import annotations

from pathlib import Path

import pytest

from components.export.export import export
from tests.components.export.building import Built, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def exported(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "saved_model"
    export(built.candidate, built.evaluation, built.dataset, out)
    return out
