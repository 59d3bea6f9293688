"""The data card: one self-contained HTML page that describes a dataset."""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image, ImageOps

from components.ingest.card.label_counts import LabelCounts, count_labels
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import histogram
from components.ingest.catalog.rows import StoredImage
from components.ingest.checks.image_stats import over_white
from components.ingest.checks.image_validation import upper_bytes
from components.ingest.splits.duplicates import DuplicateReport
from components.ingest.spool import StoredImageReader
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.manifests.dataset import DatasetManifest

PREVIEW_PX = 96
PREVIEWS_PER_CLASS, PREVIEWS = 8, 240
CLASS_ROWS, QUARANTINE_ROWS, PAIRS, BARS = 200, 50, 12, 24
_SCANNED_IMAGES = 100_000
_CHART_WIDTH, _CHART_HEIGHT, _BAR_HEIGHT = 300, 130, 125

CONVERSIONS = {
    "16-bit": "The upper 8 of 16 bits are used.",
    "alpha": "Transparency is composited over white.",
    "animated": "The first frame or page is used.",
    "avif": "Encoded again as PNG, because serving does not read AVIF.",
    "bmp-variant": "Encoded again as PNG, because serving reads plain BMP only.",
    "clipped-box": "The part of the box inside the image is used.",
    "cmyk": "CMYK is converted to RGB, without a color profile.",
    "exif-orientation": "The image is rotated or mirrored to its EXIF orientation.",
    "palette": "Palette colors are converted to RGB.",
    "tiff": "Encoded again as PNG, because serving does not read TIFF.",
}
DUPLICATES = {
    "exact_sets": "sets of files with the same bytes",
    "exact_dropped": "files of these sets that were dropped (copies and label conflicts)",
    "near_pairs": "pairs of near duplicates",
    "near_groups": "groups of near duplicates, each kept in one split",
    "near_grouped": "images in these groups",
    "near_ungrouped": "pairs not grouped, because their groups would be too large",
    "near_label_conflicts": "pairs of near duplicates with two labels",
    "leaking": "sets of duplicates in several splits of the source",
    "leaking_dropped": "near duplicates of these sets that were dropped",
    "leaking_kept": "near duplicates of other splits that were kept",
}


@dataclass(frozen=True)
class Preview:
    """A small version of an image as a data URI; `enlarged` if the image is smaller than it."""

    uri: str
    path: str
    enlarged: bool


def write_data_card(
    path: Path, manifest: DatasetManifest, catalog: Catalog, spool: Path, report: DuplicateReport
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        manifest: of the dataset, complete.
        catalog: of the images, with their splits.
        spool: the folder of the spool files.
        report: of the duplicates; some are shown.
    """
    rows = sorted(_class_rows(manifest), key=lambda row: (-row["total"], row["name"]))
    with StoredImageReader(spool) as reader:
        card = {
            "title": ", ".join(manifest.sources)[:80],
            "images": sum(split.count for split in manifest.splits.values()),
            "classes": rows[:CLASS_ROWS],
            "more_classes": max(0, len(rows) - CLASS_ROWS),
            "labels": _label_counts(manifest, catalog),
            "previews": _class_previews(catalog, reader, manifest),
            "charts": list(_charts(catalog)),
            "duplicates": [(DUPLICATES[k], n) for k, n in manifest.duplicates.items() if n],
            "pairs": list(_pair_previews(catalog, reader, report.examples)),
            "quarantine": [
                (_text(file), reason, detail)
                for file, reason, detail in catalog.quarantined(QUARANTINE_ROWS)
            ],
            "conversions": [(k, n, CONVERSIONS[k]) for k, n in manifest.conversions.items()],
        }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["thousands"] = "{:,}".format
    page = environment.get_template("data_card.html.j2").render(m=manifest, card=card)
    write_text(path, page.encode("utf-8", "replace").decode())


def _class_rows(manifest: DatasetManifest) -> Iterator[dict[str, Any]]:
    totals = {
        name: sum(info.by_class[name] for info in manifest.splits.values())
        for name in manifest.classes
    }
    largest = max(totals.values())
    for name, total in totals.items():
        counts = {split: info.by_class[name] for split, info in manifest.splits.items()}
        percents = {split: 100 * count / largest for split, count in counts.items()}
        yield {"name": name, "total": total, "counts": counts, "percents": percents}


def _label_counts(manifest: DatasetManifest, catalog: Catalog) -> LabelCounts | None:
    return count_labels(catalog) if manifest.labels_per_image == "several" else None


def _class_previews(
    catalog: Catalog, reader: StoredImageReader, manifest: DatasetManifest
) -> dict[str, list[Preview]]:
    """Return the first training images of each class by id, a hash; with many classes, fewer."""
    shown = manifest.classes[:PREVIEWS]
    several = manifest.labels_per_image == "several"
    each = max(1, min(PREVIEWS_PER_CLASS, PREVIEWS // len(shown)))
    previews: dict[str, list[Preview]] = {name: [] for name in shown}
    missing = each * len(shown)
    for label, image in catalog.stored_images("train", limit=_SCANNED_IMAGES):
        for name in json.loads(label) if several else (label,):
            if name in previews and len(previews[name]) < each:
                previews[name].append(_preview(reader, image))
                missing -= 1
        if not missing:
            break
    return {name: found for name, found in previews.items() if found}


def _pair_previews(
    catalog: Catalog, reader: StoredImageReader, examples: Sequence[tuple[int, int]]
) -> Iterator[list[Preview]]:
    for pair in examples[:PAIRS]:
        images = catalog.stored_pair(pair)
        if len(images) == 2:
            yield [_preview(reader, image) for image in images]


def _preview(reader: StoredImageReader, stored: StoredImage) -> Preview:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(reader.read(stored)))
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = upper_bytes(image)
        enlarged = max(image.size) < PREVIEW_PX
        image.thumbnail((PREVIEW_PX, PREVIEW_PX))
        image = over_white(image)
    buffer = io.BytesIO()
    kind = "png" if enlarged else "jpeg"
    image.save(buffer, kind, **({} if enlarged else {"quality": 82}))
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Preview(f"data:image/{kind};base64,{encoded}", _text(stored.path), enlarged)


def _charts(catalog: Catalog) -> Iterator[dict[str, Any]]:
    for title, measure, digits in (
        ("Longer side, px", "longer_side_px", 0),
        ("Width : height", "aspect_ratio", 2),
        ("Stored size, kB", "stored_kb", 1),
    ):
        low, high, counts = histogram(catalog, measure, BARS)
        if low == high:
            yield {"title": title, "only": f"{low:.{digits}f}"}
        else:
            yield {"title": title, "only": "", **_bars(counts, low, high, digits)}


def _bars(counts: dict[int, int], low: float, high: float, digits: int) -> dict[str, Any]:
    """Lay out one histogram."""
    largest, width = max(counts.values()), _CHART_WIDTH / BARS
    bars: list[dict[str, Any]] = []
    edges = [low + (high - low) * number / BARS for number in range(BARS + 1)]
    for number, count in sorted(counts.items()):
        # A single image among thousands must be visible.
        height = max(1.0, round(_BAR_HEIGHT * count / largest, 2))
        bars.append(
            {
                "x": round(number * width + 0.5, 2), "y": round(_CHART_HEIGHT - height, 2),
                "width": width - 1, "height": height, "count": count,
                "label": f"{edges[number]:.{digits}f} to {edges[number + 1]:.{digits}f}",
            }
        )  # fmt: skip
    return {
        "bars": bars, "low": f"{low:.{digits}f}", "middle": f"{(low + high) / 2:.{digits}f}",
        "high": f"{high:.{digits}f}", "peak": max(bars, key=lambda bar: int(bar["count"]))["label"],
    }  # fmt: skip


def _text(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "replace").decode()
