"""`regraft init`: a recipe for a folder, which fits its contents and can be run."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from pipelines.recipes.recipe_file import known_recipes, read_recipe, recipe_of
from tests.command_line import Regraft


def write(folder: Path, counts: dict[str, int], px: int = 40) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (px, px + 9), (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


def test_a_recipe_fits_the_folder(tmp_path: Path, regraft: Regraft) -> None:
    folder = write(tmp_path / "my pets!", {"cat": 30, "dog: big": 9, "#x": 10})
    output = tmp_path / "new" / "pets.yaml"
    ended = regraft("init", folder, "-o", output)
    assert ended.code == 0, ended.err
    assert "49 images of 3 classes" in ended.out
    values = read_recipe(str(output))
    assert values["sources"] == (str(folder),)
    assert values["model_name"] == "my-pets"
    assert values["image_px"] == 64
    assert "class_weights" not in values
    assert "as many images as the smallest. If rare" in output.read_text()
    assert values["min_accuracy"] == 0.62
    assert "# Only about 2 test images of dog: big: " in output.read_text()
    assert recipe_of(str(output), {}).strategies == ("head", "top")


def test_a_split_folder_keeps_its_splits(tmp_path: Path, regraft: Regraft) -> None:
    for split in ("train", "val"):
        write(tmp_path / "images" / split, {"a": 3, "b": 3}, px=500)
    output = tmp_path / "recipe.yml"
    assert regraft("init", tmp_path / "images", "-o", output).code == 0
    text = output.read_text()
    assert "# The folder is already split: 6 train, 6 validation." in text
    assert "# Images for test are sampled from train." in text
    values = read_recipe(str(output))
    assert "validation_fraction" not in values
    assert values["test_fraction"] == 0.2
    assert values["image_px"] == 224
    assert "class_weights" not in values


def test_a_file_is_not_overwritten(tmp_path: Path, regraft: Regraft) -> None:
    folder = write(tmp_path / "images", {"a": 2, "b": 2})
    output = tmp_path / "recipe.yaml"
    output.write_text("mine")
    ended = regraft("init", folder, "-o", output)
    assert ended.code == 2
    assert "exists already" in ended.err
    assert output.read_text() == "mine"
    assert regraft("init", folder, "-o", output, "--force").code == 0
    assert read_recipe(str(output))


@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "found nothing"), ({"cat": 2}, "found cat: 2"), ({"cat": 0, "dog": 0}, "found none")],
)
def test_a_folder_without_classes_is_refused(
    tmp_path: Path, regraft: Regraft, counts: dict[str, int], message: str
) -> None:
    folder = write(tmp_path / "images", counts)
    folder.mkdir(exist_ok=True)
    ended = regraft("init", folder, "-o", tmp_path / "recipe.yaml")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_folder_without_readable_images_is_refused(tmp_path: Path, regraft: Regraft) -> None:
    assert "expected a folder" in regraft("init", tmp_path / "none").err
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_text("no image")
    ended = regraft("init", tmp_path / "images", "-o", tmp_path / "recipe.yaml")
    assert ended.code == 2
    assert "found no readable image" in ended.err
    assert "expected a .yaml" in regraft("init", tmp_path / "images", "-o", "recipe.txt").err


def test_built_in_recipes_match_the_schema(regraft: Regraft) -> None:
    schema = regraft("recipe-schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    for name in known_recipes():
        values = json.loads(json.dumps(read_recipe(name)))
        jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError, match="bakcbone"):
        jsonschema.validate({"bakcbone": "vgg16"}, schema)
