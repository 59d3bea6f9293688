"""What the theme of the site lacks for keyboards and screen readers, added to its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COMPLETE = {
    # A keyboard can only scroll what it can reach.
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer': '<aside aria-label="All pages" class="sidebar-drawer',
    '<aside class="toc-drawer': '<aside aria-label="This page" class="toc-drawer',
    # The corner of a table is not a header.
    '<th class="head"><p></p></th>': "<td></td>",
}


def complete_pages(app: Any, exception: Exception | None) -> None:
    """Add the attributes to all pages of a site that Sphinx has built."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for written, complete in _COMPLETE.items():
            text = text.replace(written, complete)
        page.write_text(text, encoding="utf-8")
