"""The images that the demo writes, to try the server with."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from regraft.demo import IMAGES_SHOWN, held_out, write_images
from regraft_core.formats.manifests.dataset import DatasetManifest


def test_held_out_images_are_written_to_files(dataset: Path, tmp_path: Path) -> None:
    records = held_out(dataset)
    assert len(records) == IMAGES_SHOWN
    write_images(records, tmp_path)
    classes = DatasetManifest.read(dataset).classes
    for record in records:
        file = tmp_path / record.path
        assert file.read_bytes() == record.encoded
        assert file.parent.name == classes[record.label]
        with Image.open(file) as image:
            image.verify()
