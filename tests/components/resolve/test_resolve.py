"""The first step: what is there now, and inputs that end a run before any work."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.resolve.resolve import RunInputs, resolve, resolve_options
from pipelines.recipes.default_arguments import DEFAULTS
from pipelines.recipes.recipe import make_recipe
from regraft_core.formats.content_store import GENERATION_FILE, ContentStore
from regraft_core.formats.fixes import Fix, format_fixes
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.run_outcome import LastPublication, write_last_publication
from regraft_core.formats.store_records import (
    EntryOrigin,
    options_digest,
    read_runs,
    record_origin,
    record_removal,
)
from regraft_core.runtime.errors import InputError
from serving.publishing.publish import publish_saved_model
from tests.hub_presets import PRESET_CONFIG, write_preset


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


@pytest.mark.parametrize("labels", [{"label_columns": ["a", "b"]}, {"label_separator": ";"}])
def test_options_that_are_not_for_several_labels_end_the_run(
    inputs: RunInputs, labels: dict[str, Any]
) -> None:
    values = {**DEFAULTS, **dataclasses.asdict(inputs), "backbone": "tiny", "run_id": "run-1"}
    assert resolve_options(values | labels)["ingest"].items() >= labels.items()
    with pytest.raises(InputError, match="class-weights: not available with several labels"):
        resolve_options(values | labels | {"class_weights": "balanced"})


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


def test_ingest_gets_the_champion_but_not_its_version(inputs: RunInputs, exported: Path) -> None:
    """Otherwise a publication would change its options, and the cache would not return it."""
    values = {**DEFAULTS, **dataclasses.asdict(inputs), "backbone": "tiny", "run_id": ""}
    before = resolve_options(values)["ingest"]
    shutil.copytree(exported, Path(inputs.destination) / "shapes" / "1")
    assert resolve(inputs).champion
    assert resolve_options(values)["ingest"] == before
    assert before["champion"] == inputs.champion


def test_another_store_changes_the_state(inputs: RunInputs) -> None:
    before = resolve(inputs)
    ContentStore(inputs.work_dir).remove_record(GENERATION_FILE)
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
        ({"backbone": "{tmp}/nothing.keras"}, "backbone: expected a .keras or .h5 file"),
        ({"backbone": "hub:{tmp}/nothing"}, "backbone: expected a preset's folder at"),
        ({"weights": "{tmp}/nothing.keras"}, "weights: expected .* a file, found no file at"),
        ({"weights": "{tmp}"}, "weights: expected .* a file, found no file at"),
        ({"weights": "{tmp}/file#sha256=00"}, "weights: expected SHA-256 00 of .*, found e3b0c4"),
        ({"weights": "s3://bucket/w.h5"}, "weights: expected a path"),
        ({"ood_images": "{tmp}/nothing"}, "ood_images: expected a file or folder, found none"),
        ({"fixes": "{tmp}/nothing.csv"}, "fixes: cannot read .*nothing.csv: No such file"),
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


def test_the_steps_get_weights_with_the_digest_of_their_file(
    inputs: RunInputs, tmp_path: Path
) -> None:
    """A cache compares options; a file behind the same path may have another content."""
    path, given = tmp_path / "w.h5", dataclasses.asdict(inputs) | {"backbone": "tiny", "run_id": ""}
    found = []
    for content in (b"weights", b"others"):
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        for weights in (str(path), f"{path}#sha256={digest.upper()}", path.as_uri()):
            options = resolve_options({**DEFAULTS, **given, "weights": weights})
            location = weights.partition("#")[0]
            assert options["extract_features"]["weights"] == f"{location}#sha256={digest}"
            found.append(options_digest(options["extract_features"]))
    assert found[0] == found[1] != found[3]
    options = resolve_options({**DEFAULTS, **given, "weights": "random"})
    assert options["extract_features"]["weights"] == "random"


def test_extract_features_gets_the_backbone_with_the_digest_of_its_files(
    inputs: RunInputs, tmp_path: Path
) -> None:
    given = {**DEFAULTS, **dataclasses.asdict(inputs), "run_id": ""}
    found = []
    for width in (64, 64, 96):
        name = write_preset(tmp_path / "vit", config=PRESET_CONFIG | {"mlp_dim": width})
        (tmp_path / "vit" / "model.weights.h5").touch()
        options = resolve_options(given | {"backbone": name})["extract_features"]
        location, _, digest = options["backbone"].partition("#sha256=")
        assert location == name and len(digest) == 64
        found.append(options_digest(options))
    assert found[0] == found[1] != found[2]


def test_ingest_gets_the_fixes_with_the_digest_of_their_file(
    inputs: RunInputs, tmp_path: Path
) -> None:
    path, given = tmp_path / "f.csv", dataclasses.asdict(inputs) | {"backbone": "tiny"}
    found = []
    for label in ("cat", "cat", "dog"):
        fix = Fix("0" * 64, "drop", label, "", "ann", "2026-11-27T21:50:00Z")
        path.write_text(format_fixes([fix]))
        values = {**DEFAULTS, **given, "run_id": "", "fixes": str(path)}
        options = resolve_options(values)["ingest"]
        assert options["fixes"] == f"{path}#sha256={digest_file(path)}"
        found.append(options_digest(options))
    assert found[0] == found[1] != found[2]


def test_the_steps_get_the_backbones_to_compare_with_their_weights(
    inputs: RunInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the machine that runs the steps, and part of what a cache compares."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    given = dataclasses.asdict(inputs) | {"backbone": "auto", "image_px": "auto", "run_id": ""}
    options = resolve_options({**DEFAULTS, **given})["extract_features"]
    assert (options["backbone"], options["image_px"]) == ("auto", "auto")
    assert options["candidates"] == {"efficientnet_lite0": "imagenet"}
    file = tmp_path / "weights" / "tiny.weights.h5"
    file.parent.mkdir()
    for content in (b"weights", b"others"):
        file.write_bytes(content)
        values = {**DEFAULTS, **given, "weights": str(file.parent)}
        digest = hashlib.sha256(content).hexdigest()
        assert resolve_options(values)["extract_features"]["candidates"] == {
            "tiny": f"{file}#sha256={digest}"
        }
    named = resolve_options({**DEFAULTS, **given, "backbone": "tiny"})["extract_features"]
    assert "candidates" not in named
    with pytest.raises(InputError, match="backbone that accepts 16 px for auto, found none"):
        resolve_options({**DEFAULTS, **given, "image_px": "16"})


def test_a_format_without_its_package_is_found_before_any_work(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"onnx": ("not_installed_here",)}
    monkeypatch.setattr("regraft_core.formats.export_packages.FORMAT_PACKAGES", packages)
    resolve_options(values)
    with pytest.raises(InputError, match=r"formats: onnx needs not_installed_here.*regraft\[onnx"):
        resolve_options(values | {"formats": ["onnx"]})


def test_an_engine_without_its_package_is_found_before_any_work(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"openvino": "not_installed_here"}
    monkeypatch.setattr("regraft_core.formats.engine_packages.ENGINE_PACKAGES", packages)
    resolve_options(values)
    with pytest.raises(InputError, match=r"feature-engine: openvino needs not_.*regraft\[openvino"):
        resolve_options(values | {"feature_engine": "openvino"})


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


@pytest.fixture
def values(inputs: RunInputs) -> dict[str, Any]:
    """All options of the run."""
    recipe = make_recipe(
        sources=tuple(inputs.sources), destination=inputs.destination, model_name="shapes",
        work_dir=inputs.work_dir, backbone="tiny", strategies=("head",),
    )  # fmt: skip
    return {**recipe.arguments(), "workers": 1, "run_id": "run-1"}


def entries(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write a dataset and a head to the store as a run would; return the options of its steps."""
    options = resolve_options(values)
    store = ContentStore(values["work_dir"])
    made = {"ingest": ("dataset-1f", "dataset.json", []),
            "train_head": ("head-1f", "model.json", ["dataset-1f"])}  # fmt: skip
    for step, (name, manifest, read) in made.items():
        record_origin(store, name, EntryOrigin(
            step=step, options=options_digest(options[step]), inputs=read,
        ))  # fmt: skip
        store.write_record(f"{name}/{manifest}", "{}")
    return options


def test_an_unchanged_run_has_the_same_options(values: dict[str, Any]) -> None:
    first = entries(values)
    again = resolve_options(values | {"run_id": "run-2"})
    assert [step for step in again if again[step] != first[step]] == ["publish", "record_verdict"]
    assert again["publish"] == first["publish"] | {"run_id": "run-2"}


@pytest.mark.parametrize("removal", ["lost", "being removed"])
@pytest.mark.parametrize("name", ["dataset-1f", "head-1f"])
def test_removed_content_is_made_again_and_then_reused(
    values: dict[str, Any], name: str, removal: str
) -> None:
    first = entries(values)
    store = ContentStore(values["work_dir"])
    if removal == "lost":
        store.remove(name)
    else:
        record_removal(store, [name])
    second = resolve_options(values)
    assert second["ingest"]["source_state"] != first["ingest"]["source_state"]
    assert resolve_options(values) == second
    changed = {step for step in second if second[step] != first[step]}
    assert changed == {"ingest", "evaluate", "publish"}
    record_removal(store, [])
    entries(values)
    assert resolve_options(values) == first, "the content is there again, with the same name"


def test_content_that_another_run_made_does_not_matter(values: dict[str, Any]) -> None:
    first = entries(values)
    other = values | {"min_per_class": 7}
    entries(other)
    ContentStore(values["work_dir"]).remove("head-1f")
    changed = resolve_options(values | {"folds": 3})
    assert changed["ingest"] == first["ingest"], "no head was made with these options"


def test_the_run_is_recorded_in_the_store(values: dict[str, Any]) -> None:
    options = resolve_options(values)
    resolve_options(values | {"run_id": "", "seed": 1})
    options_here = resolve_options(values | {"run_id": ""})
    by_id, here = read_runs(ContentStore(values["work_dir"])).values()
    for run, own in ((by_id, options), (here, options_here)):
        assert (run.destination, run.model_name) == (values["destination"], "shapes")
        assert run.steps["ingest"] == options_digest(own["ingest"])


DIGEST = "5" * 64


def publish(values: dict[str, Any]) -> None:
    """Write the files of a published version that `resolve` reads."""
    version = Path(values["destination"], values["model_name"], "1")
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    (version / "regraft.json").write_text(json.dumps({"digest": DIGEST}))


def last_publication(values: dict[str, Any], options: dict[str, Any], digest: str) -> None:
    last = LastPublication(
        inputs=options["publish"]["inputs"], saved_model_digest=digest,
        champion_digest=options["publish"]["champion_digest"],
    )  # fmt: skip
    write_last_publication(values["destination"], values["model_name"], last)


def test_the_same_run_after_its_publication_has_the_same_options(
    values: dict[str, Any],
) -> None:
    first = resolve_options(values)
    assert first["evaluate"]["champion_digest"] == ""
    last_publication(values, first, DIGEST)
    assert resolve_options(values) == first, "announced, but not published"
    publish(values)
    assert resolve_options(values) == first
    last_publication(values, resolve_options(values), DIGEST)
    assert resolve_options(values) == first, "the third run"


@pytest.mark.parametrize(
    "change", [{"min_accuracy": 0.5}, {"seed": 1}, {"sources": ["sample:digits"]}]
)
def test_after_another_run_the_champion_is_the_published_model(
    values: dict[str, Any], change: dict[str, Any]
) -> None:
    last_publication(values, resolve_options(values), DIGEST)
    publish(values)
    assert resolve_options(values | change)["evaluate"]["champion_digest"] == DIGEST


def test_a_champion_that_was_not_published_last_is_compared(
    values: dict[str, Any],
) -> None:
    first = resolve_options(values)
    last_publication(values, first, "0" * 64)
    publish(values)
    found = resolve_options(values)["evaluate"]["champion_digest"]
    assert found == DIGEST
