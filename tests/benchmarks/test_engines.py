"""The peer of the benchmark of engines that another Python measures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.engines import torch_rates
from regraft_core.runtime.errors import InputError


def test_another_python_measures_its_own_model(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho \'{"bfloat16": 12.5}\'\necho "$4 $5" > "$0.asked"\n')
    other.chmod(0o755)
    assert torch_rates(other, "mobilenetv2", 224, 3) == {"bfloat16": 12.5}
    assert (tmp_path / "python.asked").read_text() == "224 32\n"


@pytest.mark.parametrize(
    ("python", "cause"),
    [(sys.executable, "No module named 'timm'"), ("/no/python", "No such file")],
)
def test_an_environment_without_it_is_one_line(python: str, cause: str) -> None:
    with pytest.raises(InputError, match=f"^torch: expected a Python with .*{cause}"):
        torch_rates(Path(python), "resnet50", 224, 1)
