"""The command line, run in the process of the tests, so that TensorFlow starts once."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data

from pipelines.cli import main
from tests.pipelines.command_line import Ended, Regraft

PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.fixture
def regraft(capsys: pytest.CaptureFixture[str]) -> Regraft:
    """Return a function that runs `regraft` with its arguments."""

    def run(*arguments: str | Path | int) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, written.out, written.err)

    return run


@pytest.fixture(scope="session")
def cat() -> Path:
    """A photograph of a cat."""
    return PHOTOGRAPHS / "chelsea.png"


@pytest.fixture(scope="session")
def coffee() -> Path:
    """A photograph of a cup of coffee."""
    return PHOTOGRAPHS / "coffee.png"
