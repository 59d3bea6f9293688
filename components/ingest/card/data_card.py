"""The data card: one self-contained HTML page that shows what is in a dataset."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image, ImageOps

from components.ingest.catalog import Catalog
from components.ingest.checks.image_bytes import STORED_COLUMNS, StoredImages
from components.ingest.splits.duplicates import Duplicates
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.manifests import DatasetManifest

THUMB_PX = 96
THUMBS_PER_CLASS, THUMBS = 8, 240
CLASS_ROWS, QUARANTINE_ROWS, PAIRS, BARS = 200, 50, 12, 24
_SCANNED = 100_000

CONVERSIONS = {
    "16-bit": "The upper 8 of 16 bits are used.",
    "alpha": "Transparency is laid over white.",
    "animated": "The first frame is used.",
    "bmp-variant": "Stored anew as PNG, as serving reads BMP of 8, 24 and 32 bits only.",
    "cmyk": "CMYK becomes RGB, without a color profile.",
    "exif-orientation": "The image is turned upright.",
    "palette": "Palette colors become RGB.",
}
DUPLICATES = {
    "exact_sets": "sets of files with the same bytes",
    "exact_dropped": "files dropped for that (a copy, or a conflict of labels)",
    "near_pairs": "pairs of near duplicates",
    "near_groups": "groups of near duplicates, each kept in one split",
    "near_grouped": "images in such groups",
    "near_left": "near-duplicate pairs left apart, as their groups would grow too large",
    "near_under_two_classes": "near-duplicate pairs under two classes",
    "leaking": "sets of duplicates that crossed the given splits",
    "leaking_dropped": "near duplicates dropped for that",
}


@dataclass(frozen=True)
class Thumb:
    """A small image as a data address. `small`: it was enlarged, and should look so."""

    uri: str
    path: str
    small: bool


def write_data_card(
    path: Path, manifest: DatasetManifest, catalog: Catalog, spool: Path, found: Duplicates
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        manifest: of the dataset, complete.
        catalog: of the images, with their splits.
        spool: where the stored bytes are.
        found: the duplicates; some are shown.
    """
    rows = sorted(_class_rows(manifest), key=lambda row: (-row["total"], row["name"]))
    with StoredImages(spool) as stored:
        card = {
            "title": ", ".join(manifest.sources)[:80],
            "images": sum(split.count for split in manifest.splits.values()),
            "classes": rows[:CLASS_ROWS],
            "more_classes": max(0, len(rows) - CLASS_ROWS),
            "thumbs": _class_thumbs(catalog, stored, manifest.classes),
            "charts": list(_charts(catalog)),
            "duplicates": [(DUPLICATES[k], n) for k, n in manifest.duplicates.items() if n],
            "pairs": list(_pairs(catalog, stored, found.examples)),
            "quarantine": _quarantine_rows(catalog),
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
    most = max(totals.values())
    for name, total in totals.items():
        counts = {split: info.by_class[name] for split, info in manifest.splits.items()}
        shares = {split: 100 * count / most for split, count in counts.items()}
        yield {"name": name, "total": total, "counts": counts, "shares": shares}


def _class_thumbs(
    catalog: Catalog, stored: StoredImages, classes: Sequence[str]
) -> dict[str, list[Thumb]]:
    """Return the first images (by id, so drawn by hash) of each class; of many classes, fewer."""
    shown = classes[:THUMBS]
    each = max(1, min(THUMBS_PER_CLASS, THUMBS // len(shown)))
    thumbs: dict[str, list[Thumb]] = {name: [] for name in shown}
    missing = each * len(shown)
    rows = catalog.ask(
        f"SELECT label, {STORED_COLUMNS} FROM images WHERE split = 'train'"  # noqa: S608
        " ORDER BY id LIMIT ?",
        (_SCANNED,),
    )
    for label, *row in rows:
        if label in thumbs and len(thumbs[label]) < each:
            thumbs[label].append(_thumb(stored, row))
            missing -= 1
            if not missing:
                break
    return {name: found for name, found in thumbs.items() if found}


def _pairs(
    catalog: Catalog, stored: StoredImages, examples: Sequence[tuple[int, int]]
) -> Iterator[list[Thumb]]:
    for pair in examples[:PAIRS]:
        question = f"SELECT {STORED_COLUMNS} FROM images WHERE number IN (?,?) ORDER BY id"  # noqa: S608
        rows = list(catalog.ask(question, pair))
        if len(rows) == 2:
            yield [_thumb(stored, row) for row in rows]


def _thumb(stored: StoredImages, row: Sequence[Any]) -> Thumb:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Image.Image = Image.open(io.BytesIO(stored.read(row)))
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            image = Image.fromarray(high)
        small = max(image.size) < THUMB_PX
        image.thumbnail((THUMB_PX, THUMB_PX))
        rgba = image.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    buffer = io.BytesIO()
    if small:
        Image.alpha_composite(ground, rgba).convert("RGB").save(buffer, "PNG")
    else:
        Image.alpha_composite(ground, rgba).convert("RGB").save(buffer, "JPEG", quality=82)
    kind = "png" if small else "jpeg"
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumb(f"data:image/{kind};base64,{encoded}", _text(row[1]), small)


def _charts(catalog: Catalog) -> Iterator[dict[str, Any]]:
    charts = (
        ("Longer side, px", "max(width, height)", 0),
        ("Width : height", "1.0 * width / height", 2),
        ("Stored size, kB", "length / 1024.0", 1),
    )
    ranges = ", ".join(f"min({value}), max({value})" for _, value, _ in charts)
    (limits,) = catalog.ask(f"SELECT {ranges} FROM images")  # noqa: S608
    for number, (title, value, digits) in enumerate(charts):
        low, high = limits[2 * number : 2 * number + 2]
        if low == high:
            yield {"title": title, "only": f"{low:.{digits}f}"}
            continue
        counts = dict(
            catalog.ask(
                f"SELECT CAST(({value} - ?) * ? / (? - ?) AS INTEGER), count(*)"  # noqa: S608
                " FROM images GROUP BY 1",
                (low, BARS, high, low),
            )
        )
        # The highest value belongs to the last bar.
        counts[BARS - 1] = counts.get(BARS - 1, 0) + counts.pop(BARS, 0)
        yield {"title": title, "only": "", **_bars(counts, low, high, digits)}


def _bars(counts: dict[int, int], low: float, high: float, digits: int) -> dict[str, Any]:
    """Lay out one histogram in a box of 300 x 130."""
    most, width = max(counts.values()), 300 / BARS
    bars: list[dict[str, Any]] = []
    edges = [low + (high - low) * number / BARS for number in range(BARS + 1)]
    for number, count in sorted(counts.items()):
        if not count:
            continue
        # A single image among thousands must still be seen.
        height = max(1.0, round(125 * count / most, 2))
        bars.append(
            {
                "x": round(number * width + 0.5, 2), "y": round(130 - height, 2),
                "width": width - 1, "height": height, "count": count,
                "label": f"{edges[number]:.{digits}f} to {edges[number + 1]:.{digits}f}",
            }
        )  # fmt: skip
    return {
        "bars": bars, "low": f"{low:.{digits}f}", "middle": f"{(low + high) / 2:.{digits}f}",
        "high": f"{high:.{digits}f}", "peak": max(bars, key=lambda bar: int(bar["count"]))["label"],
    }  # fmt: skip


def _quarantine_rows(catalog: Catalog) -> list[tuple[str, str, str]]:
    rows = catalog.ask(
        "SELECT path, reason, detail FROM quarantine ORDER BY path, reason LIMIT ?",
        (QUARANTINE_ROWS,),
    )
    return [(_text(path), reason, detail) for path, reason, detail in rows]


def _text(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "replace").decode()
