"""Recipes as files: what is read, what is refused and how, and what options change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.recipes.recipe_file import known_recipes, read_recipe, recipe_of, with_recipe
from regraft_core.runtime.errors import InputError

CATS_VS_DOGS = "gdrive:1nBE3N2cXQGwD8JaD0JZ2LmFD-n3D5hVU"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def test_built_in_recipes_are_complete() -> None:
    assert known_recipes() == ["cats_vs_dogs", "digits", "fashion_mnist"]
    for name in known_recipes():
        recipe = recipe_of(name, {})
        assert recipe.model_name == name
        assert recipe.min_accuracy > 0


def test_cats_vs_dogs_compares_three_strategies() -> None:
    recipe = recipe_of("cats_vs_dogs", {})
    assert recipe.sources == (CATS_VS_DOGS,)
    assert (recipe.backbone, recipe.cut) == ("vgg16", "block4_pool")
    assert set(recipe.strategies) == {"full", "top", "head"}


def test_yaml_1_1_booleans_and_dates_are_text(write) -> None:
    values = read_recipe(write(
        "sources: [a]\nnear_duplicates: off\naugment: off\nflips: on\n"
        "min_recall_by_class: {no: 0.9, 7: 1}\n"
        "learning_rate: 1e-3\nmodel_name: 2026-01-01\nrequire_gpu: true\nl2: 0\n"
    ))  # fmt: skip
    assert values["near_duplicates"] == values["augment"] == "off"
    assert values["flips"] == "on"
    assert values["min_recall_by_class"] == {"no": 0.9, "7": 1.0}
    assert values["learning_rate"] == 1e-3
    assert values["model_name"] == "2026-01-01"
    assert values["require_gpu"] is True
    assert values["l2"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bakcbone: vgg16", "line 1: unknown key 'bakcbone'; did you mean backbone?"),
        ("sources: [a]\nsource: [b]", "line 2: unknown key 'source'; did you mean sources"),
        ("sources: [a]\nstrategy: top", "unknown key 'strategy'; did you mean strategies"),
        ("seed: 1\nbackbone: vgg16\nseed: 2", "line 3: invalid YAML: found duplicate key"),
        ("min_recall_by_class: {a: 0.1, a: 0.2}", "line 1: invalid YAML: found duplicate key"),
        ("sources: ./images", "line 1: sources: expected a list, got './images'"),
        ("folds: '3'", "folds: expected a valid integer, got '3'"),
        ("folds: 2.5", "folds: expected a valid integer, got 2.5"),
        ("folds: 0", "folds: expected greater than or equal to 2, got 0"),
        ("require_gpu: yes", "require_gpu: expected a valid boolean, got 'yes'"),
        ("model_name: 7", "model_name: expected a valid string, got 7"),
        ("backbone:", "backbone: expected a valid string, got None"),
        ("min_accuracy: .nan", "min_accuracy: expected a finite number"),
        (
            "augment: mild",
            "augment: expected 'auto', 'off', 'flip', 'light', 'strong' or 'random', got 'mild'",
        ),
        ("strategies: [top, top]", "each strategy once"),
        ("- a\n- b", "expected a mapping of options, got a list"),
        ("digits", "expected a mapping of options, got the value 'digits'"),
        ("", "got an empty file"),
        ("# only a comment\n", "got an empty file"),
        ("a: [1, 2", "line 1: invalid YAML: expected"),
        ("a: 1\n---\nb: 2", "line 2: invalid YAML: but found another document"),
        ("min_recall_by_class: {? [a, b] : 1}", "expected plain keys and values"),
        ("min_recall_by_class: &x {a: 0.1}\nsources: *x", "line 2: invalid YAML: aliases"),
        ("sources: [a]\nseed: !!python/object:os.system x", "line 2: invalid YAML: tags ("),
        ("model_name: !!binary aGk=", "line 1: invalid YAML: tags ("),
        ("a: " + "[" * 5000 + "]" * 5000, "deep nesting"),
        ("a: \x07", "invalid YAML: "),
        ("sources: [a]\nhead: gap", "line 2: unknown key 'head'; did you mean pooling?"),
        ("lr: 1e-3", "unknown key 'lr'; did you mean learning_rate?"),
        ("epochs: 3", "did you mean fine_tune_epochs?"),
        ("validation_fraction: 0.9", "validation_fraction + test_fraction below 1, got 0.9 + 0.2"),
        (b"\xff\xfe\x00", "expected text in UTF-8"),
        (b"a" * ((1 << 20) + 1), "at most 1 MB"),
    ],
)
def test_a_bad_file_is_one_clear_line(write, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(write(text))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean digits"),
        ("no/such/file.yaml", "found no file no/such/file.yaml"),
        ("docs", "got the folder"),
    ],
)
def test_a_missing_recipe_is_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(name)


def test_options_override_the_recipe(write) -> None:
    path = write("sources: [a.zip]\nsha256: '" + "0" * 64 + "'\nmirrors: [b.zip]\nseed: 3\n")
    assert with_recipe(path, {"seed": 4})["seed"] == 4
    other = with_recipe(path, {"sources": ["c.zip"]})
    assert "sha256" not in other
    assert "mirrors" not in other
    assert other["sources"] == ["c.zip"]


def test_the_name_of_a_recipe_as_source_means_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"sources": ["a", "cats_vs_dogs"]}
    assert with_recipe(None, given)["sources"] == ("a", CATS_VS_DOGS)
    monkeypatch.chdir(tmp_path)
    Path("cats_vs_dogs").mkdir()
    assert with_recipe(None, given)["sources"] == ["a", "cats_vs_dogs"]


def test_a_recipe_compiles_with_its_options_as_defaults(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "regraft.cli.main", "compile", "cats_vs_dogs", "--seed", "5",
         "-o", str(tmp_path / "p.yaml")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ir = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    assert parameters["sources"]["defaultValue"] == [CATS_VS_DOGS]
    assert parameters["cut"]["defaultValue"] == "block4_pool"
    assert parameters["seed"]["defaultValue"] == 5
