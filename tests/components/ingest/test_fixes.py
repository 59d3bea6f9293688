"""The decisions of a review change the dataset, by the bytes of the images."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pytest

from components.ingest.ingest import ingest
from regraft_core.formats.fixes import Action, Fix, read_fixes, write_fixes
from regraft_core.formats.manifests.dataset import SPLITS
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import InputError

WHEN = "2026-11-27T21:50:00Z"


def fix(image: Path, action: Action, new: str = "", old: str = "") -> Fix:
    sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
    return Fix(sha256, action, old or image.parent.name, new, "ann", WHEN)


def options(folder: Path, *fixes: Fix) -> IngestOptions:
    write_fixes(folder / "fixes.csv", fixes)
    return IngestOptions(processes=1, fixes=str(folder / "fixes.csv"))


def labels(out: Path, classes: list[str]) -> dict[str, str]:
    return {r.path: classes[r.label] for split in SPLITS for r in read_split(out, split)}


def test_images_are_relabeled_and_dropped_with_provenance(images: Path, tmp_path: Path) -> None:
    cats = sorted((images / "cat").iterdir())
    used = options(
        tmp_path,
        fix(cats[0], "relabel", "dog"), fix(cats[1], "drop"), fix(cats[2], "keep"),
        fix(cats[3], "unsure"), fix(cats[4], "relabel", "dog", old="horse"),
        Fix("0" * 64, "drop", "cat", "", "bob", WHEN),
    )  # fmt: skip
    out = tmp_path / "out"
    manifest = ingest([str(images)], out, used)
    found = labels(out, manifest.classes)
    assert found["cat/000.png"] == "dog" and "cat/001.png" not in found and len(found) == 39
    assert all(found[f"cat/{number:03}.png"] == "cat" for number in (2, 3, 4))
    applied = manifest.fixes
    assert applied is not None and applied.digest == read_fixes(used.fixes).digest
    assert (applied.relabeled, applied.dropped, applied.kept, applied.unsure) == (1, 1, 1, 1)
    assert (applied.outdated, applied.unknown) == (1, 1)
    assert applied.reviewers == {"ann": 5, "bob": 1}
    assert any("1 are of images that are not in the sources" in one for one in manifest.warnings)
    assert manifest.quarantined == {"dropped-in-review": 1}
    with open(out / "quarantine.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["path"] == "cat/001.png" and row["detail"] == f"by ann at {WHEN}"
    assert read_fixes(out / "fixes.csv").fixes == read_fixes(used.fixes).fixes
    assert "1 images relabeled, 1 dropped" in (out / "data_card.html").read_text()
    assert manifest.digest != ingest([str(images)], tmp_path / "plain", IngestOptions()).digest


def test_a_fix_ends_the_conflict_of_an_image_with_two_labels(images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "cat" / "000.png", images / "dog" / "copy.png")
    out = tmp_path / "out"
    used = options(tmp_path, fix(images / "cat" / "000.png", "relabel", "dog"))
    manifest = ingest([str(images)], out, used)
    assert manifest.quarantined == {"exact-duplicate": 1}
    assert labels(out, manifest.classes)["cat/000.png"] == "dog"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Fix("0" * 64, "drop", "cat", "", "", WHEN), "fixes of images in the sources, found none"),
        (None, "expected a class as new label of .*, got 'cow'; classes: cat, dog"),
    ],
)
def test_fixes_of_other_data_are_refused(
    images: Path, tmp_path: Path, changed: Fix | None, message: str
) -> None:
    used = options(tmp_path, changed or fix(images / "cat" / "000.png", "relabel", "cow"))
    with pytest.raises(InputError, match=message):
        ingest([str(images)], tmp_path / "out", used)
    assert not (tmp_path / "out").exists()
