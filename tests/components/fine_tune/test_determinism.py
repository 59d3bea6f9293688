"""With `deterministic`, the same seed gives the same model; the setting stays in its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
from tensorflow.python.framework import config
from components.extract_features.extract_features import extract_features
from components.fine_tune.fine_tune import fine_tune
from components.train_head.train_head import train_head
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.train_head import HeadOptions

same = {"deterministic": True, "seed": 3}
features = FeatureOptions(backbone="tiny", views=2, augment="light", **same)
for name in "ab":
    out = Path(sys.argv[2]) / name
    extract_features(sys.argv[1], out / "features", features)
    train_head([out / "features"], out / "head", HeadOptions(**same))
    options = FineTuneOptions(strategy="full", fine_tune_epochs=1, **same)
    made = fine_tune(sys.argv[1], [out / "features"], out / "head", out / "model", options)
    print("loss", made.history[-1].loss.hex(), config.is_op_determinism_enabled())
"""


@pytest.mark.long
def test_the_same_seed_gives_the_same_model(dataset: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(dataset), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (line for line in done.stdout.splitlines() if line.startswith("loss "))
    assert first == second
    assert first.endswith(" True")
