"""`regraft bench`: runs one of the benchmarks of the checkout by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from regraft_core.runtime.errors import InputError, unknown_name

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHMARKS = (
    "ingest", "training", "accuracy", "evaluation", "export", "serving", "orchestration",
    "scale", "scale_out", "demo", "gpu", "engines", "extraction", "coverage", "drift", "review",
    "several_labels", "label_intervals", "scale_catalog", "head_penalties", "backbones",
    "commands", "estimate",
)  # fmt: skip


def run_benchmark(name: str, arguments: Sequence[str], checkout: Path = CHECKOUT) -> None:
    """Run one benchmark with its own arguments; it writes its result to the file of `--json`.

    Raises:
        InputError: the benchmark does not exist, or Regraft does not run from a checkout.
    """
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, BENCHMARKS)
    if not (checkout / "benchmarks" / f"{name}.py").is_file():
        raise InputError(
            f"expected {checkout}/benchmarks/{name}.py, found none: benchmarks are part of a "
            "checkout, not of the installed package; run this in a clone of the repository"
        )
    # The installed command does not import from the checkout, and some benchmarks use fixtures
    # of the tests.
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    importlib.import_module(f"benchmarks.{name}").main(list(arguments))
