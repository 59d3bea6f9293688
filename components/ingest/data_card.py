"""The data card: one self-contained HTML page that shows what is in a dataset."""

from __future__ import annotations

from pathlib import Path

import jinja2

from components.core.artifacts import DatasetManifest, write_text

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Data card</title>
<h1>Data card</h1><p>{{ m.sources|join(", ") }}</p>
<table><tr><th>class{% for s in m.splits %}<th>{{ s }}{% endfor %}
{% for c in m.classes %}<tr><td>{{ c }}{% for s in m.splits.values() %}<td>{{ s.by_class[c] }}
{% endfor %}{% endfor %}</table></html>
"""


def write_data_card(path: Path, manifest: DatasetManifest) -> None:
    """Write the page."""
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    write_text(path, template.render(m=manifest))
