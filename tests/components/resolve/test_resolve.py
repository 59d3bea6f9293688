"""The first step: what is there now, and inputs that end a run before any work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from components.resolve.resolve import RunInputs, resolve, resolve_options
from pipelines.recipes.recipe import DEFAULTS
from regraft_core.formats.content_store import ContentStore
from regraft_core.runtime.errors import InputError
from serving.publishing.publish import publish_saved_model


@pytest.fixture
def inputs(shapes: Path, tmp_path: Path) -> RunInputs:
    """The inputs of a run on this machine, with nothing published yet."""
    models = str(tmp_path / "models")
    return RunInputs(
        sources=[str(shapes)],
        champion=f"{models}/shapes",
        destination=models,
        work_dir=str(tmp_path / "work"),
    )


def test_the_same_inputs_have_the_same_state(inputs: RunInputs) -> None:
    assert resolve(inputs) == resolve(inputs)
    other = dataclasses.replace(inputs, sources=["sample:digits"])
    assert resolve(other).source_state != resolve(inputs).source_state


def test_a_repeated_run_gives_ingest_the_same_inputs(
    inputs: RunInputs, capsys: pytest.CaptureFixture[str]
) -> None:
    """KFP's cache compares them; the ID of the run is no input of ingest."""
    values = {**DEFAULTS, **dataclasses.asdict(inputs), "backbone": "tiny", "run_id": "run-1"}
    # A resumed run gets its parameters from the server, in which whole numbers have no fraction.
    whole = {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in values.items()}
    first, again = resolve_options(values), resolve_options(whole | {"run_id": "run-2"})
    cached = set(first) - {"publish", "record_verdict"}
    assert {n: json.dumps(first[n]) for n in cached} == {n: json.dumps(again[n]) for n in cached}
    lines = [line for line in capsys.readouterr().out.splitlines() if ": inputs" in line]
    assert len(lines) == 2 and len(set(lines)) == 1


def test_removed_content_changes_the_state(inputs: RunInputs) -> None:
    before = resolve(inputs)
    Path(inputs.work_dir, "dataset-1").mkdir()
    ContentStore(inputs.work_dir).remove(["dataset-1"])
    assert resolve(inputs).source_state != before.source_state


def test_the_champion_is_a_version_that_stays(inputs: RunInputs, exported: Path) -> None:
    assert (resolve(inputs).champion, resolve(inputs).champion_digest) == ("", "")
    publish_saved_model(exported, inputs.destination, "shapes")
    first = resolve(inputs)
    assert first.champion == f"{inputs.destination}/shapes/1"
    assert len(first.champion_digest) == 64
    assert first.source_state == resolve(inputs).source_state


def test_the_champion_in_a_bucket(inputs: RunInputs, exported: Path, bucket: str) -> None:
    remote = dataclasses.replace(
        inputs, destination=f"{bucket}/models", champion=f"{bucket}/models/shapes"
    )
    assert resolve(remote).champion == ""
    publish_saved_model(exported, remote.destination, "shapes")
    found, local = resolve(remote), resolve(inputs)
    assert found.champion == f"{bucket}/models/shapes/1"
    publish_saved_model(exported, inputs.destination, "shapes")
    local = resolve(inputs)
    assert found.champion_digest == local.champion_digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "sources: expected at least one"),
        ({"sources": ["sample:digit"]}, "did you mean sample:digits"),
        ({"sources": ["{tmp}/nothing"]}, "unknown source"),
        ({"backbone": "vgg61"}, "did you mean .*vgg16"),
        ({"weights": "{tmp}/nothing.keras"}, "weights: expected a file or folder, found none"),
        ({"ood_images": "{tmp}/nothing"}, "ood_images: expected a file or folder, found none"),
        ({"destination": "{tmp}/file/models"}, "destination: cannot write to"),
        ({"destination": "s4://bucket/models"}, "cannot open s4://"),
        ({"work_dir": "{tmp}/file/work"}, "work_dir: cannot write to"),
        ({"champion": "{tmp}/file"}, "champion: expected a folder, got the file"),
    ],
)
def test_unusable_inputs_are_named(
    inputs: RunInputs, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    (tmp_path / "file").write_text("")

    def filled(value: object) -> object:
        if isinstance(value, list):
            return [filled(one) for one in value]
        return str(value).replace("{tmp}", str(tmp_path))

    changed = dataclasses.replace(inputs, **{k: filled(v) for k, v in change.items()})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as raised:
        resolve(changed)
    assert "\n" not in str(raised.value)


def test_weights_may_have_a_digest(inputs: RunInputs, tmp_path: Path) -> None:
    """The digest follows the path; `extract_features` checks it."""
    (tmp_path / "w.h5").write_bytes(b"weights")
    resolve(dataclasses.replace(inputs, weights=f"{tmp_path}/w.h5#sha256={'0' * 64}"))


def test_a_bucket_without_rights_is_named(inputs: RunInputs, s3: None) -> None:
    with pytest.raises(InputError, match=r"destination: cannot write to s3://not-there/models"):
        resolve(dataclasses.replace(inputs, destination="s3://not-there/models"))


def test_the_probe_leaves_nothing(inputs: RunInputs) -> None:
    destination = Path(inputs.destination)
    resolve(inputs)
    assert not destination.exists()
    destination.mkdir(parents=True)
    resolve(inputs)
    assert list(destination.iterdir()) == []
