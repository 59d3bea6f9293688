"""A dataset with other classes than the champion's is refused before it is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.ingest.component import ingest as component
from components.ingest.ingest import ingest
from components.ingest.sources.samples import DIGIT_CLASSES, write_digits
from regraft_core.formats.fingerprint import LABELS_FILE
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri

OPTIONS = IngestOptions(processes=1)
DIFFERENCE = (
    "champion pets version 7 has different classes (missing: ['dog']; extra: ['owl']); "
    "publish under a new --model-name"
)


def archive(folder: Path, images: Path) -> str:
    return shutil.make_archive(str(folder / "images"), "zip", images)


def table(folder: Path, images: Path) -> str:
    rows = [f"{path},{path.parent.name}" for path in images.rglob("*.png")]
    (folder / "images.csv").write_text("\n".join(["path,label", *rows]))
    return str(folder / "images.csv")


def add_champion(destination: str, *classes: str) -> str:
    files, root = open_store_uri(f"{destination}/pets/7")
    files.makedirs(f"{root}/assets", exist_ok=True)
    files.pipe_file(f"{root}/saved_model.pb", b"graph")
    files.pipe_file(f"{root}/{LABELS_FILE}", "\n".join(classes).encode())
    return f"{destination}/pets"


@pytest.mark.parametrize("make", [archive, table])
def test_other_classes_end_the_step(
    images: Path, tmp_path: Path, make: Callable[[Path, Path], str]
) -> None:
    source, out = make(tmp_path, images), tmp_path / "dataset"
    champion = add_champion(str(tmp_path / "models"), "cat", "owl")
    with pytest.raises(InputError) as raised:
        ingest([source], out, OPTIONS, champion)
    assert str(raised.value) == DIFFERENCE
    assert not out.exists()
    add_champion(str(tmp_path / "models"), "dog", "cat")
    assert ingest([source], out, OPTIONS, champion).classes == ["cat", "dog"]


def test_the_champion_in_a_bucket_is_compared(images: Path, tmp_path: Path, bucket: str) -> None:
    champion = add_champion(bucket, "cat", "owl")
    with pytest.raises(InputError) as raised:
        ingest([str(images)], tmp_path / "dataset", OPTIONS, champion)
    assert str(raised.value) == DIFFERENCE
    none = f"{bucket}/other"
    assert ingest([str(images)], tmp_path / "dataset", OPTIONS, none).classes == ["cat", "dog"]


def test_the_component_gets_the_champion_of_the_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, card = (
        SimpleNamespace(path=str(tmp_path / name), uri=f"minio://b/run/{name}", metadata={})
        for name in ("dataset", "data_card")
    )
    champion = add_champion(str(tmp_path / "models"), "cat", "owl")
    with pytest.raises(SystemExit, match="2"):
        component.python_func(
            {"sources": [str(images)], "processes": 1, "champion": champion}, dataset, card
        )
    assert capsys.readouterr().out.splitlines()[-1] == f"[regraft:error:2] ingest: {DIFFERENCE}"


def test_the_classes_of_the_digits_are_known_without_them(tmp_path: Path) -> None:
    write_digits(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(DIGIT_CLASSES)
