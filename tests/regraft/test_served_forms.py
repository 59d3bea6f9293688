"""Forms of data, from their files to the answer of a running server."""

from __future__ import annotations

from pathlib import Path

import pytest

import regraft
from regraft_client.rest import RestClient
from tests.components.ingest.forms import items_of, web_dataset


@pytest.mark.long(seconds=30)
def test_a_model_of_web_dataset_is_served(shapes: Path, tmp_path: Path) -> None:
    items = items_of(shapes)
    run = regraft.run(
        web_dataset(tmp_path, items), out=tmp_path / "run", backbone="tiny", strategies=["head"],
        engine="embedded", min_accuracy=0.0, baseline_rule="off", recall_floor=0.0,
        verify_images=4, model_name="shapes",
    )  # fmt: skip
    images = [data for *_, data in items[::4]]
    with regraft.serve(run) as server, RestClient(server.rest, "shapes") as client:
        served = client.predict(images)
    assert run.model_dir is not None
    here = regraft.load(run.model_dir).predict(images)
    assert [one.label for one in served] == [one.label for one in here]
    assert {one.label for one in served} <= {label for _, label, _ in items}
