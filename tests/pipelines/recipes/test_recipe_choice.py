"""`regraft run` with a recipe, or with images and the defaults of `regraft init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.recipes.recipe_choice import choose_options
from pipelines.recipes.recipe_draft import write_draft
from pipelines.recipes.recipe_file import read_recipe
from regraft_core.runtime.errors import InputError


def test_a_folder_has_the_options_that_init_writes(shapes: Path, tmp_path: Path) -> None:
    output = tmp_path / "shapes.yaml"
    write_draft(shapes, output)
    chosen = choose_options(str(shapes), {})
    written = read_recipe(str(output))
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.values.items()} == written
    assert chosen.note == (
        "no recipe: backbone efficientnet_lite0, image px 64, strategies head,top, "
        f"min accuracy 0.34; `regraft init {shapes} -o {chosen.name}.yaml` writes them to edit"
    )


def test_options_override_the_defaults_of_a_folder(shapes: Path) -> None:
    chosen = choose_options(str(shapes), {"backbone": "tiny", "strategies": ["head"]})
    assert (chosen.values["backbone"], chosen.values["image_px"]) == ("tiny", 64)
    assert chosen.note.startswith("no recipe: backbone tiny, image px 64, strategies head,")
    preset = choose_options(str(shapes), {"backbone": "hub:dinov2_base"})
    assert preset.values["image_px"] == 0  # that of the preset


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("pets.tar.gz", "pets"),
        ("labels.csv", "labels"),
        ("https://host.example/data/pets.zip?version=2", "pets"),
        ("s3://bucket/pets/", "pets"),
        ("gdrive:1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU", "1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"),
        ("sample:digits", "digits"),
    ],
)
def test_other_images_are_not_read_for_their_defaults(
    images: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if ":" not in images:
        Path(images).touch()
    chosen = choose_options(images, {})
    assert chosen.name == chosen.values["model_name"] == name
    assert chosen.values["sources"] == [images]
    assert chosen.note == (
        "no recipe: backbone efficientnet_lite0, image px 224, strategies head,top"
    )


def test_a_recipe_needs_no_note() -> None:
    chosen = choose_options("digits", {})
    assert (chosen.name, chosen.note) == ("digits", "")
    assert chosen.values["sources"] == ("sample:digits",)


def test_a_recipe_wins_over_a_folder_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    chosen = choose_options("digits", {})
    assert chosen.values["sources"] == ("sample:digits",)
    assert chosen.note == (
        "recipe digits; the images in ./digits are not used: give ./digits for them"
    )
    with pytest.raises(InputError, match="two or more classes"):
        choose_options("./digits", {})


def test_without_recipe_and_images_the_given_sources_are_used() -> None:
    chosen = choose_options(None, {"sources": ["images"], "model_name": "pets"})
    assert (chosen.values["sources"], chosen.name, chosen.note) == (["images"], "pets", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "unknown recipe or folder 'digit'; did you mean digits"),
        ("imags", "did you mean images"),
        ("none.yaml", "found no file none.yaml"),
    ],
)
def test_what_does_not_exist_gets_suggestions(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=message):
        choose_options(name, {})


def test_images_twice_are_refused(shapes: Path) -> None:
    with pytest.raises(InputError, match=r"either .* or --source, got both"):
        choose_options(str(shapes), {"sources": ["other"]})
