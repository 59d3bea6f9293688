"""The report: one self-contained HTML page from `report.json`."""

from __future__ import annotations

from pathlib import Path

import jinja2

from components.evaluate.report_data import ReportData

REPORT_FILE = "report.html"


def render(data: ReportData) -> str:
    """Return the page."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(data=data)
