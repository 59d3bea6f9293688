"""The tables of `regraft inspect`, which fit a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from regraft.cli.console_output import add_row, console, table

if TYPE_CHECKING:
    from regraft.explore.inspection import ModelFacts
    from regraft.explore.trainable_counts import StrategyCounts

SHORT_DIGEST = 12


def print_model_facts(found: ModelFacts) -> None:
    """Print the facts, then a table for each part that exists."""
    out = console()
    out.print(f"{found.name}: {found.kind}")
    for name, value in found.facts.items():
        out.print(f"  {name.replace('_', ' ')}: {_fact(name, value)}")
    if found.layers:
        _show(out, "layers", ("layer", "output", "parameters", "state", "cut"), (
            (row.name, _shape(row.output), f"{row.parameters:,}" if row.parameters else "",
             row.state, "cut" if row.cut_point else "")
            for row in found.layers
        ), numbers=(2,))  # fmt: skip
    if found.cuts:
        _show(out, "cut points: cache and FLOPs per image, parameters above",
              ("cut", "output", "cache", "below", "above", "parameters"), (
            (row.name, _shape(row.output), amount(row.cache_bytes, "B"), amount(row.flops_below),
             amount(row.flops_above), amount(row.parameters_above))
            for row in found.cuts
        ), numbers=(2, 3, 4, 5))  # fmt: skip
    if found.heads:
        _show(out, "heads on the last feature map", ("pooling", "inputs", "parameters"), (
            (row.pooling, f"{row.inputs:,}", f"{row.parameters:,}") for row in found.heads
        ), numbers=(1, 2))  # fmt: skip
    if found.weights:
        _show(out, "weights", ("name", "shape", "trained", "mean", "std", "min", "max", "zeros"), (
            (row.name, _shape(row.shape), "yes" if row.trainable else "no", f"{row.mean:.4g}",
             f"{row.std:.4g}", f"{row.min:.4g}", f"{row.max:.4g}", f"{row.zero_fraction:.2%}")
            for row in found.weights
        ), numbers=(3, 4, 5, 6, 7))  # fmt: skip
        for title, trainable in (("trainable_weights", True), ("non_trainable_weights", False)):
            names = [row.name for row in found.weights if row.trainable is trainable]
            out.print(f"{title}: {', '.join(names) or 'none'}")
    for signature in found.signatures:
        rows = [("in", *_tensor(one)) for one in signature.inputs]
        rows += [("out", *_tensor(one)) for one in signature.outputs]
        _show(out, f"signature {signature.name}", ("", "name", "dtype", "shape"), rows)
    if found.strategy:
        out.print(_strategy(found.strategy))
    if found.exported is not None:
        out.print(f"{found.exported} arrays written")


def amount(number: float, unit: str = "") -> str:
    """Return a number with three digits and an SI prefix: 25.1 M."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


def _show(
    out: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
) -> None:
    shown = table(*columns, title=title, numbers=numbers)
    for row in rows:
        add_row(shown, *row)
    out.print(shown)


def _fact(name: str, value: Any) -> str:
    if name == "flops":
        return f"{amount(value)} per image"
    if name.endswith("digest"):
        return str(value)[:SHORT_DIGEST]
    if isinstance(value, list):
        return _shape(value)
    return f"{value:,}" if type(value) is int else str(value)


def _shape(sizes: Sequence[int | None] | None) -> str:
    if sizes is None:
        return "any"
    return "x".join("n" if size is None else str(size) for size in sizes) or "scalar"


def _tensor(tensor: Any) -> tuple[str, str, str]:
    return tensor.name, tensor.dtype, _shape(tensor.shape)


def _strategy(counts: StrategyCounts) -> str:
    parts = [
        f"{counts.trainable_parameters:,} trainable, {counts.frozen_parameters:,} frozen parameters"
    ]
    if counts.trained_layers:
        parts.append(f"{counts.trained_layers} trained layers of the backbone from "
                     f"{counts.first_trained} on")  # fmt: skip
        parts.append(f"{amount(counts.forward_flops)}FLOPs per image forward")
    if counts.cache_bytes:
        parts.append(f"{amount(counts.cache_bytes, 'B')} cache per image")
    cut = f" above {counts.cut}" if counts.cut else ""
    text = f"strategy {counts.strategy}{cut}: {'; '.join(parts)}"
    return f"{counts.note} {text}" if counts.note else text
