"""Writes suggested images as a table to fill in, and as a page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import jinja2

from regraft.image_inputs import encode_image
from regraft.previews import preview
from regraft.suggestion.ranking import SuggestedImage, Suggestions
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.printable import neutral_cell

TABLE_FILE, PAGE_FILE = "suggested.csv", "suggested.html"
COLUMNS = ("path", "label", "predicted", "confidence", "uncertainty", "familiar", "sha256")
PREVIEW_PX = 224


def write_suggestions(folder: Path, model: str, found: Suggestions) -> tuple[Path, Path]:
    """Write `suggested.csv` and `suggested.html` to a folder; return their paths.

    The column `label` of the table is empty; filled in, the table is a source of `regraft run`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(image) for image in found.images)
    page = _render(model, found)
    write_text(folder / TABLE_FILE, text.getvalue().encode("utf-8", "replace").decode())
    write_text(folder / PAGE_FILE, page.encode("utf-8", "replace").decode())
    return folder / TABLE_FILE, folder / PAGE_FILE


def _cells(image: SuggestedImage) -> list[str]:
    familiar = "" if image.familiar is None else str(image.familiar).lower()
    texts = (str(Path(image.path).absolute()), "", image.predicted, f"{image.confidence:.4f}",
             f"{image.uncertainty:.4f}", familiar, image.sha256)  # fmt: skip
    return [neutral_cell(text) for text in texts]


def _render(model: str, found: Suggestions) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    previews = [(one, preview(encode_image(one.path), PREVIEW_PX)) for one in found.images]
    template = environment.get_template("page.html.j2")
    return template.render(model=model, found=found, previews=previews)
