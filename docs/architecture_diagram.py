"""Draws the layers of the code, their packages and the imports between layers.

`python -m docs.architecture_diagram` writes `docs/images/architecture.svg` from the code and the
import-linter contracts in pyproject.toml. A test fails if the diagram is not up to date.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

from pipelines.cluster.run_tasks import STEPS

ROOT = Path(__file__).resolve().parents[1]
DIAGRAM = ROOT / "docs" / "images" / "architecture.svg"
ROLES = {
    "regraft": "command line and Python API",
    "benchmarks": "measurements, not installed",
    "pipelines": "the graph of steps; runs",
    "components": "one folder per step",
    "serving": "server and publishing",
    "regraft_core": "shared by all layers",
    "regraft_client": "a package of its own",
}
PACKAGES_X, PACKAGES_WIDTH, MATRIX_X, CELL = 230, 520, 780, 48
TOP, BOX, GAP, PADDING = 110, 26, 8, 12
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 }
  .layer { font-weight: 600; font-size: 15px }
  .role, .note { fill: #52606d; font-size: 12px }
  .count { font-size: 14px; text-anchor: middle }
  .package { fill: #fff; stroke: #9fb3c8 }
  .band { fill: #f0f4f8 }
"""


@dataclass(frozen=True)
class Layer:
    """A top folder and the packages in it."""

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """The layers from the top to the bottom, and the number of imports between two layers."""

    layers: tuple[Layer, ...]
    imports: dict[tuple[str, str], int]


def read_architecture() -> Architecture:
    """Return the layers of the layers contract, with the imports in the code."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = [c for c in pyproject["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    layers = next(c["layers"] for c in contracts if "containers" not in c)
    graph = grimp.build_graph(*layers)
    imports: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            imports[module.split(".")[0], imported.split(".")[0]] += 1
    orders = {c["containers"][0]: _names(c["layers"]) for c in contracts if "containers" in c}
    orders["components"] = [step.replace("-", "_") for step in STEPS]
    return Architecture(
        tuple(
            Layer(name, _packages(graph.find_children(name), orders.get(name, [])))
            for name in layers
        ),
        dict(imports),
    )


def draw(architecture: Architecture) -> str:
    """Return the diagram as SVG: a band per layer, and a matrix of imports next to it."""
    columns = {layer.name: MATRIX_X + CELL * n for n, layer in enumerate(architecture.layers)}
    bands = []
    y = TOP
    for layer in architecture.layers:
        boxes, rows = _boxes(layer.packages, y)
        height = rows * (BOX + GAP) - GAP + 2 * PADDING
        middle = y + height / 2
        bands.append(f'<rect class="band" x="10" y="{y}" width="{MATRIX_X - 30}" '
                     f'height="{height}" rx="6"/>')  # fmt: skip
        bands.append(_text(layer.name, 24, middle - 3, "layer"))
        bands.append(_text(ROLES[layer.name], 24, middle + 15, "role"))
        bands += boxes
        for name, x in columns.items():
            count = architecture.imports.get((layer.name, name), 0)
            if name == layer.name:
                bands.append(f'<rect x="{x}" y="{middle - 12:g}" width="{CELL}" height="24" '
                             'fill="#d9e2ec"/>')  # fmt: skip
            elif count:
                bands.append(_text(str(count), x + CELL / 2, middle + 5, "count"))
        y += height + GAP
    width, height = MATRIX_X + CELL * len(architecture.layers) + 30, y + 30
    header = [
        f'<text class="role" transform="translate({x + CELL / 2:g} {TOP - 8}) rotate(-50)">'
        f"{escape(name)}</text>"
        for name, x in columns.items()
    ]
    note = "Right: the number of imports from a layer (row) into another layer (column)."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" role="img">',
        "<title>The layers of Regraft and the imports between them</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height:g}" fill="#fff"/>',
        *header, *bands, _text(note, 10, y + 14, "note"), "</svg>", "",
    ])  # fmt: skip


def _names(layers: Iterable[str]) -> list[str]:
    """Return the names of a contract, in which `|` joins independent ones."""
    return [name.strip() for layer in layers for name in layer.split("|")]


def _packages(children: Iterable[str], order: list[str]) -> tuple[str, ...]:
    """Return the last names of modules in a given order, then in the order of the alphabet."""
    names = {child.rpartition(".")[2] for child in children} - {"__main__"}
    return tuple(sorted(names, key=lambda name: (
        order.index(name) if name in order else len(order), name
    )))  # fmt: skip


def _boxes(packages: Iterable[str], y: float) -> tuple[list[str], int]:
    """Return the boxes of a layer's packages, and the number of rows that they need."""
    boxes: list[str] = []
    x, row = PACKAGES_X, 0
    for package in packages:
        width = 8 * len(package) + 18
        if x + width > PACKAGES_X + PACKAGES_WIDTH:
            x, row = PACKAGES_X, row + 1
        top = y + PADDING + row * (BOX + GAP)
        boxes.append(f'<rect class="package" x="{x}" y="{top}" width="{width}" height="{BOX}" '
                     'rx="4"/>')  # fmt: skip
        boxes.append(_text(package, x + 9, top + 17))
        x += width + GAP
    return boxes, row + 1


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:g}" y="{y:g}">{escape(text)}</text>'


if __name__ == "__main__":
    DIAGRAM.write_text(draw(read_architecture()), encoding="utf-8")
