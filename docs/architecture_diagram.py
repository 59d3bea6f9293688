"""Draws the floors of the code, their rooms and the imports between floors.

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

from pipelines.cluster.watch import STEPS

ROOT = Path(__file__).resolve().parents[1]
DIAGRAM = ROOT / "docs" / "images" / "architecture.svg"
ROLES = {
    "regraft": "command line and Python API",
    "benchmarks": "measurements, not installed",
    "pipelines": "the graph of steps; runs",
    "components": "one folder per step",
    "serving": "server and publishing",
    "regraft_core": "shared by all floors",
    "regraft_client": "a package of its own",
}
ROOMS_X, ROOMS_WIDTH, MATRIX_X, CELL = 230, 520, 780, 48
TOP, BOX, GAP, PADDING = 110, 26, 8, 12
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 }
  .floor { font-weight: 600; font-size: 15px }
  .role, .note { fill: #52606d; font-size: 12px }
  .count { font-size: 14px; text-anchor: middle }
  .room { fill: #fff; stroke: #9fb3c8 }
  .band { fill: #f0f4f8 }
"""


@dataclass(frozen=True)
class Floor:
    """A top folder and the rooms in it."""

    name: str
    rooms: tuple[str, ...]


@dataclass(frozen=True)
class House:
    """The floors from the top to the bottom, and the number of imports between two floors."""

    floors: tuple[Floor, ...]
    imports: dict[tuple[str, str], int]


def read_house() -> House:
    """Return the floors of the layers contract, with the imports in the code."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = [c for c in pyproject["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    floors = next(c["layers"] for c in contracts if "containers" not in c)
    graph = grimp.build_graph(*floors)
    imports: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            imports[module.split(".")[0], imported.split(".")[0]] += 1
    orders = {c["containers"][0]: _names(c["layers"]) for c in contracts if "containers" in c}
    orders["components"] = [step.replace("-", "_") for step in STEPS]
    return House(
        tuple(
            Floor(name, _rooms(graph.find_children(name), orders.get(name, []))) for name in floors
        ),
        dict(imports),
    )


def draw(house: House) -> str:
    """Return the diagram as SVG: a band per floor, and a matrix of imports next to it."""
    columns = {floor.name: MATRIX_X + CELL * n for n, floor in enumerate(house.floors)}
    bands = []
    y = TOP
    for floor in house.floors:
        boxes, rows = _boxes(floor.rooms, y)
        height = rows * (BOX + GAP) - GAP + 2 * PADDING
        middle = y + height / 2
        bands.append(f'<rect class="band" x="10" y="{y}" width="{MATRIX_X - 30}" '
                     f'height="{height}" rx="6"/>')  # fmt: skip
        bands.append(_text(floor.name, 24, middle - 3, "floor"))
        bands.append(_text(ROLES[floor.name], 24, middle + 15, "role"))
        bands += boxes
        for name, x in columns.items():
            count = house.imports.get((floor.name, name), 0)
            if name == floor.name:
                bands.append(f'<rect x="{x}" y="{middle - 12:g}" width="{CELL}" height="24" '
                             'fill="#d9e2ec"/>')  # fmt: skip
            elif count:
                bands.append(_text(str(count), x + CELL / 2, middle + 5, "count"))
        y += height + GAP
    width, height = MATRIX_X + CELL * len(house.floors) + 30, y + 30
    header = [
        f'<text class="role" transform="translate({x + CELL / 2:g} {TOP - 8}) rotate(-50)">'
        f"{escape(name)}</text>"
        for name, x in columns.items()
    ]
    note = "Right: the number of imports from a floor (row) into another floor (column)."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" role="img">',
        "<title>The floors of Regraft and the imports between them</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height:g}" fill="#fff"/>',
        *header, *bands, _text(note, 10, y + 14, "note"), "</svg>", "",
    ])  # fmt: skip


def _names(layers: Iterable[str]) -> list[str]:
    """Return the names of a contract, in which `|` joins independent ones."""
    return [name.strip() for layer in layers for name in layer.split("|")]


def _rooms(children: Iterable[str], order: list[str]) -> tuple[str, ...]:
    """Return the last names of modules in a given order, then in the order of the alphabet."""
    names = {child.rpartition(".")[2] for child in children} - {"__main__"}
    return tuple(sorted(names, key=lambda name: (
        order.index(name) if name in order else len(order), name
    )))  # fmt: skip


def _boxes(rooms: Iterable[str], y: float) -> tuple[list[str], int]:
    """Return the boxes of a floor's rooms, and the number of rows that they need."""
    boxes: list[str] = []
    x, row = ROOMS_X, 0
    for room in rooms:
        width = 8 * len(room) + 18
        if x + width > ROOMS_X + ROOMS_WIDTH:
            x, row = ROOMS_X, row + 1
        top = y + PADDING + row * (BOX + GAP)
        boxes.append(f'<rect class="room" x="{x}" y="{top}" width="{width}" height="{BOX}" '
                     'rx="4"/>')  # fmt: skip
        boxes.append(_text(room, x + 9, top + 17))
        x += width + GAP
    return boxes, row + 1


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:g}" y="{y:g}">{escape(text)}</text>'


if __name__ == "__main__":
    DIAGRAM.write_text(draw(read_house()), encoding="utf-8")
