"""Forms of data, from their files to the answer of a running server.

Each form alone has the dataset of the same class folders (tests/components/ingest/test_forms.py),
and the later steps read the dataset only. So one run reads all forms, and another one crops.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

import regraft
from regraft_client.rest import RestClient
from regraft_core.formats.manifests.dataset import DatasetManifest
from tests.components.ingest.forms import CLASSES, FORMS, Items, coco, items_of, web_dataset
from tests.components.ingest.forms import write_files as write_images
from tests.components.ingest.web import Reply, Web, serving

LABELS = dict(zip(("circle", "square"), CLASSES, strict=True))


@pytest.fixture
def items(shapes: Path) -> Items:
    """Two of the shapes, with the classes that the forms have."""
    return [(name, LABELS[kind], data) for name, kind, data in items_of(shapes) if kind in LABELS]


def serve(source: Any, out: Path, images: list[bytes], **options: Any) -> Path:
    """Run a source, compare served predictions with those here; return the folder of the run."""
    run = regraft.run(
        source, out=out, backbone="tiny", strategies=["head"], engine="embedded",
        min_accuracy=0.0, baseline_rule="off", recall_floor=0.0, verify_images=4,
        near_duplicates="off", model_name="shapes", **options,
    )  # fmt: skip
    with regraft.serve(run) as server, RestClient(server.rest, "shapes") as client:
        served = client.predict(images)
    assert run.model_dir is not None
    here = regraft.load(run.model_dir).predict(images)
    assert [one.label for one in served] == [one.label for one in here]
    assert {one.label for one in served} == set(CLASSES)
    return Path(run.summary["dataset"])


def remote_shards(folder: Path, items: Items, web: Web) -> list[str]:
    """Write shards to a web server and to S3; return their patterns."""
    folders = folder / "web", folder / "s3"
    for one, part in zip(folders, (items[::2], items[1::2]), strict=True):
        one.mkdir(parents=True)
        pattern = web_dataset(one, part).name
    for file in folders[0].glob("*.tar"):
        web.plan(f"/{file.name}", Reply(file.read_bytes(), headers={"ETag": f'"{file.name}"'}))
    store = fsspec.filesystem("s3")
    store.mkdir("forms")
    for file in folders[1].glob("*.tar"):
        store.pipe_file(f"forms/{file.name}", file.read_bytes())
    return [f"{web.address}/{pattern}", f"s3://forms/{pattern}"]


def grouped_lines(folder: Path, items: Items) -> Path:
    """Write JSON lines of two groups, and an image of a given split."""
    write_images(folder, items)
    rows = [{"path": name, "label": label, "group": f"p{number % 2}"}
            for number, (name, label, _) in enumerate(items)]  # fmt: skip
    rows[0] |= {"split": "test", "group": ""}
    (folder / "grouped.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "grouped.jsonl"


@pytest.mark.long(seconds=30)
@pytest.mark.usefixtures("s3")
def test_a_model_of_all_forms_is_served(items: Items, tmp_path: Path) -> None:
    count = len(FORMS) + 4
    parts = [items[number::count] for number in range(count)]
    sources: list[Any] = []
    for number, write in enumerate(FORMS.values()):
        (tmp_path / str(number)).mkdir()
        sources.append(write(tmp_path / str(number), parts.pop()))
    sources.append(grouped_lines(tmp_path / "grouped", parts.pop()))
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for *_, data in parts[0]]
    labels = [label for _, label, _ in parts.pop()]
    sources.append(regraft.from_arrays(np.stack(pixels), labels, folder=tmp_path / "arrays"))
    with serving() as web:
        sources += remote_shards(tmp_path, [*parts.pop(), *parts.pop()], web)
        dataset = serve(sources, tmp_path / "run", [data for *_, data in items[::4]])
    manifest = DatasetManifest.read(dataset)
    assert len(manifest.sources) == count and not manifest.quarantined
    assert sum(split.count for split in manifest.splits.values()) == len(items)


@pytest.mark.long(seconds=30)
def test_a_model_of_crops_is_served(items: Items, tmp_path: Path) -> None:
    cats, dogs = ([one for one in items if one[1] == name] for name in CLASSES)
    pairs, boxes = [], []
    for number, both in enumerate(zip(cats, dogs, strict=True)):
        images = [Image.open(io.BytesIO(data)) for *_, data in both]
        whole = Image.new("RGB", (80, 40))
        for place, image in enumerate(images):
            whole.paste(image, (40 * place, 0))
            box = [40 * place, 0, 40, 40]
            boxes.append({"image_id": number, "category_id": place, "bbox": box})
        encoded = io.BytesIO()
        whole.save(encoded, "PNG")
        pairs.append((f"{number}.png", CLASSES[0], encoded.getvalue()))
    boxes.append({"image_id": 0, "category_id": 0, "bbox": [90, 0, 40, 40]})  # outside
    source = coco(tmp_path / "coco", pairs, boxes)
    dataset = serve(source, tmp_path / "run", [data for *_, data in items[::4]], crops=True)
    manifest = DatasetManifest.read(dataset)
    assert sum(split.count for split in manifest.splits.values()) == len(items)
    assert manifest.quarantined == {"invalid-box": 1}
