"""`regraft bench`: runs a benchmark by name, with its own options."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.cli.benchmarks import BENCHMARKS, run_benchmark
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft


def test_help_before_and_after_the_name_of_a_benchmark(regraft: Regraft) -> None:
    own = regraft("bench", "--help")
    assert own.code == 0
    assert all(name in own.out for name in BENCHMARKS)
    of_benchmark = regraft("bench", "evaluation", "--help")
    assert of_benchmark.code == 0
    assert "usage: regraft bench evaluation" in of_benchmark.out
    assert "--batch-size" in of_benchmark.out


def test_a_benchmark_requires_an_output_file(regraft: Regraft) -> None:
    ended = regraft("bench", "export", "--rounds", 1)
    assert ended.code == 2
    assert "--json" in ended.err


def test_an_unknown_benchmark_gets_suggestions(regraft: Regraft) -> None:
    ended = regraft("bench", "evalution", "--json", "x.json")
    assert ended.code == 2
    assert "did you mean evaluation" in ended.err


def test_outside_a_checkout_there_are_no_benchmarks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmarks are part of a checkout"):
        run_benchmark("export", [], tmp_path)
