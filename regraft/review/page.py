"""The page of a review: one HTML document, served or opened as a file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from regraft.previews import preview
from regraft.review.reviewed_run import ReviewedRun
from regraft_core.curation.reviewed_rows import REVIEWED_SPLITS
from regraft_core.curation.suspects import Suspect
from regraft_core.formats.fixes import Fix
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.records import read_split

PREVIEW_PX, SIMILAR_PX = 320, 96


def render_page(
    run: ReviewedRun, suspects: Sequence[Suspect], total: int, fixes: Mapping[str, Fix],
    *, served: bool, who: str = "",
) -> str:  # fmt: skip
    """Return the page's HTML.

    Args:
        run: what is reviewed.
        suspects: the images to show, the most harmful first.
        total: number of all suspected images.
        fixes: decisions so far.
        served: whether decisions are sent to the server of the page; otherwise the browser keeps
            them, and downloads them as a file.
        who: the reviewer.
    """
    shown = [one.image.sha256 for one in suspects]
    similar = [image.sha256 for one in suspects for image in one.similar]
    sizes = dict.fromkeys(similar, SIMILAR_PX) | dict.fromkeys(shown, PREVIEW_PX)
    images = sum(run.data.splits[split].count for split in REVIEWED_SPLITS)
    data = {
        "dataset": run.data.digest,
        "classes": run.data.classes,
        "served": served,
        "who": who,
        "run": run.folder.name,
        "summary": f"{len(shown)} of {total} suspected images, of {images} in train and validation",
        "images": _read_previews(run.dataset, sizes),
        "fixes": [astuple(fix) for fix in fixes.values()],
        "suspects": [_values(suspect) for suspect in suspects],
    }
    return fill_page("page.html", data, connects=served)


def fill_page(name: str, data: Mapping[str, Any], *, connects: bool) -> str:
    """Return a page of this package with its data, and a policy that allows nothing else.

    The data is JSON in which no character can end the script. The policy names the page's own
    script and style by their hashes; `connects` allows requests to the server of the page.
    """
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    script, style = (_hash(text, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; img-src data:; script-src {script}; style-src {style}; "
        f"connect-src {chr(39)}{'self' if connects else 'none'}{chr(39)}; base-uri 'none'; "
        "form-action 'none'"
    )
    filled = text.replace("{{POLICY}}", policy)
    # A data block that is not executed; its text is replaced last, so nothing in it is a mark.
    return filled.replace("{{DATA}}", str(htmlsafe_json_dumps(data)), 1)


def write_page(path: Path, page: str) -> None:
    """Write a page to a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _read_previews(dataset: Path, sizes: Mapping[str, int]) -> dict[str, str]:
    """Return previews of images by SHA-256; `sizes` are their longest sides in pixels."""
    records = (record for split in REVIEWED_SPLITS for record in read_split(dataset, split))
    return {one.id: preview(one.encoded, sizes[one.id]) for one in records if one.id in sizes}


def _hash(text: str, tag: str) -> str:
    """Return the hash of the content of the page's only element `tag` without attributes."""
    content = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _values(suspect: Suspect) -> dict[str, Any]:
    return {
        "id": suspect.image.sha256,
        "path": suspect.image.path,
        "label": suspect.image.label,
        "split": suspect.split,
        "better": suspect.better,
        "findings": [[finding.kind, finding.text] for finding in suspect.findings],
        "predicted": suspect.predicted,
        "similar": [[image.sha256, image.label, image.path] for image in suspect.similar],
    }
