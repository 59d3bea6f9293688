"""The step as a function: what it writes and refuses, and that it is deterministic."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components.ingest.ingest import ingest
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError

OPTIONS = IngestOptions(processes=1)


def quarantine(out: Path) -> list[dict[str, str]]:
    with open(out / "quarantine.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_classes_becomes_a_dataset(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = ingest([str(images)], out, OPTIONS)
    assert manifest == DatasetManifest.read(out)
    assert manifest.classes == ["cat", "dog"]
    stored = {record.path: record for split in SPLITS for record in read_split(out, split)}
    assert len(stored) == 40
    for path, record in stored.items():
        data = (images / path).read_bytes()
        assert record.encoded == data
        assert record.id == hashlib.sha256(data).hexdigest()
        assert manifest.classes[record.label] == path.split("/")[0]
    for info in manifest.splits.values():
        assert info.count == sum(info.by_class.values()) == sum(s.count for s in info.shards)
        assert all(digest_file(out / s.file) == s.sha256 for s in info.shards)
        assert min(info.by_class.values()) >= 1
    assert sorted(p.name for p in out.iterdir() if p.suffix != ".tfrecord") == [
        "data_card.html", "dataset.json", "quarantine.csv",
    ]  # fmt: skip
    assert quarantine(out) == []


def test_sample_digits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = ingest(["sample:digits"], out, IngestOptions(processes=2))
    assert manifest.classes == [str(digit) for digit in range(10)]
    assert sum(split.count for split in manifest.splits.values()) == 1797
    assert 300 < manifest.splits["test"].count < 420
    assert manifest.duplicates["near_pairs"] == 0
    assert all(len(split.shards) >= 8 for split in manifest.splits.values())
    record = next(iter(read_split(out, "test")))
    image = Image.open(io.BytesIO(record.encoded))
    assert (image.mode, image.size) == ("L", (64, 64))


def test_digest_depends_on_content_only(
    images: Path, tmp_path: Path, make_classes: Callable[..., Path]
) -> None:
    one = ingest([str(images)], tmp_path / "one", OPTIONS)
    two = ingest([str(images)], tmp_path / "two", IngestOptions(processes=2))
    shards = [s for info in one.splits.values() for s in info.shards]
    assert one.digest == two.digest
    assert shards == [s for info in two.splits.values() for s in info.shards]
    renamed = tmp_path / "renamed"
    for number, file in enumerate(sorted(images.rglob("*.png"), reverse=True)):
        target = renamed / file.parent.name / f"sub{number % 3}" / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    three = ingest([str(renamed)], tmp_path / "three", OPTIONS)
    assert three.digest == one.digest
    make_classes(images, count=1, first=500)
    assert ingest([str(images)], tmp_path / "four", OPTIONS).digest != one.digest


def test_another_seed_gives_other_splits(images: Path, tmp_path: Path) -> None:
    one = ingest([str(images)], tmp_path / "one", OPTIONS)
    two = ingest([str(images)], tmp_path / "two", IngestOptions(processes=1, seed=1))
    assert one.digest != two.digest


def test_several_sources_are_one_dataset(tmp_path: Path, make_classes: Callable[..., Path]) -> None:
    first = make_classes(tmp_path / "first", count=6)
    second = make_classes(tmp_path / "second", ("bird", "dog"), count=6, first=300)
    out = tmp_path / "out"
    manifest = ingest([str(first), str(second)], out, OPTIONS)
    totals: Counter[str] = Counter()
    for info in manifest.splits.values():
        totals.update(info.by_class)
    assert totals == {"bird": 6, "cat": 6, "dog": 12}
    paths = {record.path for record in read_split(out, "train")}
    assert all(path.startswith(("0-first/", "1-second/")) for path in paths)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "expected class folders with images in .*, found nothing"),
        (
            {"cat": 5},
            "expected at least two classes, found 1: cat 5; .* in one folder, use that folder",
        ),
        ({"cat": 5, "dog": 0}, r"found none in dog \(images: cat 5, dog 0\)"),
        ({"cat": 0, "dog": 0}, "expected images, found none"),
        ({"cat": 9, "dog": 2}, "at least 1 images of each class in the .* split, found"),
    ],
)
def test_too_few_images_are_refused_with_the_counts(
    tmp_path: Path, make_classes: Callable[..., Path], classes: dict[str, int], message: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for position, (name, count) in enumerate(classes.items()):
        make_classes(source, (name,), count, first=5000 * position)
    with pytest.raises(DataError, match=message):
        ingest([str(source)], tmp_path / "out", OPTIONS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_similar_names_are_suggested_for_unknown_sources(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown source 'sample:digit'; did you mean sample:dig"):
        ingest(["sample:digit"], tmp_path / "out", OPTIONS)
    with pytest.raises(InputError, match=r"did you mean .*images"):
        ingest([str(tmp_path / "picturs")], tmp_path / "out", OPTIONS)
    with pytest.raises(InputError, match="at least one source"):
        ingest([], tmp_path / "out", OPTIONS)


def test_a_folder_with_content_is_never_overwritten(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(InputError, match="an empty folder"):
        ingest([str(images)], out, OPTIONS)
    assert (out / "precious").read_text() == "mine"


def test_options_are_checked_together() -> None:
    with pytest.raises(InputError, match=r"test_fraction: expected validation_fraction \+"):
        parse_options(IngestOptions, validation_fraction=0.5, test_fraction=0.5)


def test_tensorflow_is_never_imported(images: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from regraft_core.formats.options.ingest import IngestOptions;"
        "from components.ingest.ingest import ingest;"
        "ingest([sys.argv[1]], sys.argv[2], IngestOptions());"
        "sys.exit(sorted({m.split('.')[0] for m in sys.modules} & {'tensorflow', 'keras', 'kfp'}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(images), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, "[]\n")


def test_good_png_with_unusual_chunks_are_read(
    tmp_path: Path, images: Path, make_photo: Callable[..., Image.Image]
) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    def write(name: str, image: Image.Image, extra: bytes) -> None:
        image.save(images / "cat" / name)
        data = (images / "cat" / name).read_bytes()
        start = data.index(b"IDAT") - 4
        (images / "cat" / name).write_bytes(data[:start] + extra + data[start:])

    packed = zlib.compress(bytes(2 << 20))
    write("ztxt.png", make_photo(901), chunk(b"zTXt", b"parameters\0\0" + packed))
    write("itxt.png", make_photo(902), chunk(b"iTXt", b"XML\0\1\0\0\0" + packed))
    write("iccp.png", make_photo(903), chunk(b"iCCP", b"scan\0\0" + packed))
    write("text.png", make_photo(904), chunk(b"tEXt", b"a\0" + b"x" * (2 << 20)))
    for number, entries in enumerate((20, 256, 257, 300)):
        palette = make_photo(910 + number).quantize(16)
        write(f"palette{number}.png", palette, chunk(b"tRNS", bytes(entries)))
    manifest = ingest([str(images)], tmp_path / "out", IngestOptions(processes=1))
    assert manifest.quarantined == {}
    assert sum(info.count for info in manifest.splits.values()) == 48
    assert (tmp_path / "out" / "data_card.html").is_file()


def test_the_quarantine_list_has_no_formulas(images: Path, tmp_path: Path) -> None:
    (images / "cat").rename(images / "=1+1")
    (images / "=1+1" / "bad.png").write_bytes(b"not an image")
    ingest([str(images)], tmp_path / "out", IngestOptions(processes=1, max_invalid_fraction=0.5))
    (row,) = quarantine(tmp_path / "out")
    assert row["path"] == "'=1+1/bad.png"
