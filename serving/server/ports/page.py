"""The page to try a model: one static document without external assets."""

from __future__ import annotations

import html
from pathlib import Path

PAGE_FILE = Path(__file__).with_name("page.html")


def read_page(model: str) -> str:
    """Return the page with the name of a model filled in."""
    text = PAGE_FILE.read_text(encoding="utf-8")
    return text.replace("{{MODEL}}", html.escape(model, quote=True))
