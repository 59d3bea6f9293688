"""`regraft bench`: finds a benchmark by its name and hands it its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft.cli.benchmarks import BENCHMARKS, run_benchmark
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft


def test_help_is_the_commands_before_a_name_and_the_benchmarks_after(regraft: Regraft) -> None:
    own = regraft("bench", "--help")
    assert own.code == 0
    assert all(name in own.out for name in BENCHMARKS)
    its = regraft("bench", "evaluation", "--help")
    assert its.code == 0
    assert "usage: regraft bench evaluation" in its.out
    assert "--batch-size" in its.out


def test_a_benchmark_wants_a_file_to_write_to(regraft: Regraft) -> None:
    ended = regraft("bench", "export", "--rounds", 1)
    assert ended.code == 2
    assert "--json" in ended.err


def test_unknown_names_get_near_ones(regraft: Regraft) -> None:
    ended = regraft("bench", "evalution", "--json", "x.json")
    assert ended.code == 2
    assert "did you mean evaluation" in ended.err


def test_outside_a_checkout_it_says_where_benchmarks_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmarks are part of a checkout"):
        run_benchmark("export", [], tmp_path)
