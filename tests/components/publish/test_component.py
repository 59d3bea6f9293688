from __future__ import annotations

from pathlib import Path

import yaml
from kfp import compiler

from components.publish.component import publish


def test_the_component_compiles_and_describes_its_inputs(tmp_path: Path) -> None:
    path = tmp_path / "publish.yaml"
    compiler.Compiler().compile(publish, str(path))
    (component,) = yaml.safe_load(path.read_text())["components"].values()
    inputs = component["inputDefinitions"]
    assert {"saved_model", "parity"} <= set(inputs["artifacts"])
    assert set(inputs["parameters"]) == {"options"}
    kinds = [*inputs["artifacts"].values(), *inputs["parameters"].values()]
    assert all(one["description"] for one in kinds)
