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
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.printable import neutral_cell

TABLE_FILE, PAGE_FILE = "suggested.csv", "suggested.html"
COLUMNS = ("path", "label", "predicted", "confidence", "uncertainty", "familiar", "sha256")
PREVIEW_PX = 224


def refuse_labeled(folder: Path) -> None:
    """Refuse a folder whose table is not one of this module without labels: they would be lost.

    Raises:
        InputError: the table has labels, was saved in another form, or cannot be read.
    """
    table = folder / TABLE_FILE
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            columns = tuple(rows.fieldnames or ())
            untouched = columns == COLUMNS and not any(row["label"] for row in rows)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"--out: cannot read {table}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError):
        untouched = False
    if not untouched:
        raise InputError(
            f"--out: expected a folder without a table that was filled in, got {table}; choose "
            "another folder, or move the table"
        )


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
    previews = [(one, _preview(one.path)) for one in found.images]
    template = environment.get_template("page.html.j2")
    return template.render(model=model, found=found, previews=previews)


def _preview(path: str) -> str:
    """Return the preview of a file; empty if it has been removed or changed since it was ranked."""
    try:
        return preview(encode_image(path), PREVIEW_PX)
    except Exception:  # a decoder's; the table is worth more than one preview
        return ""
