"""The web page to try a model: one static document without external assets."""

from __future__ import annotations

import html
from importlib import resources


def read_page(model: str) -> str:
    """Return the page's HTML for a model."""
    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return text.replace("{{MODEL}}", html.escape(model, quote=True))
