"""The options of a run: checked before anything starts, similar names suggested."""

from __future__ import annotations

import pytest

from pipelines.recipes.recipe import make_recipe
from regraft_core.runtime.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": "vgg61"}, "unknown backbone 'vgg61'; did you mean vgg19 or vgg16"),
        ({"strategies": ("heda",)}, "strategies: expected 'head', 'top', 'full' or 'auto'"),
        ({"strategies": ("top", "top")}, "strategies: expected each strategy once"),
        ({"strategies": ()}, "strategies"),
        ({"sources": ()}, "sources"),
        ({"sources": ("",)}, "source: expected a path, URL or sample, got an empty text"),
        ({"min_accuracy": 1.01}, "min_accuracy: expected less than or equal to 1, got 1.01"),
        ({"min_accuracy": float("nan")}, "min_accuracy"),
        ({"learning_rate": -1.0}, "learning_rate: expected greater than 0 or 'auto', got -1.0"),
        (
            {"learning_rate": "quick"},
            "learning_rate: expected a valid number, .* or 'auto', got 'quick'",
        ),
        ({"budget": "10"}, "budget: expected a time with its unit, such as 90s.*, got '10'"),
        ({"budget": "0m"}, "budget: expected a time with its unit, such as 90s.*, got '0m'"),
        ({"time_limit": "10m"}, "unknown option 'time_limit'; did you mean budget"),
        ({"folds": 1}, "folds: expected greater than or equal to 2, got 1"),
        ({"batch_size": 0}, "batch_size: expected greater than or equal to 1, got 0"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "below 1"),
        ({"model_name": "../up"}, "model_name"),
        ({"bakcbone": "vgg16"}, "unknown option 'bakcbone'; did you mean backbone"),
        ({"lr": 0.1}, "unknown option 'lr'; did you mean learning_rate"),
        ({"strategy": "top"}, "unknown option 'strategy'; did you mean strategies"),
        ({"sources": ("https://host/a.zip?X-Amz-Signature=s",)}, "source.*without a signature"),
        ({"mirrors": ("https://host/a.zip?sig=s",)}, "mirrors: expected .* without a signature"),
        ({"destination": "s3://b/m?secret=s"}, "destination: expected .* without a signature"),
        ({"validation_fraction": 0.9}, r"below 1, got 0\.9 \+ 0\.2"),
        ({"image_px": "big"}, "image_px: expected a valid integer, .* or 'auto', got 'big'"),
        ({"image_px": 4096}, "image_px: expected less than or equal to 2048 or 'auto', got 4096"),
        ({"backbone": "vgg61", "image_px": "auto"}, "unknown backbone 'vgg61'"),
        (
            {"backbone": "auto", "cut": "block4_pool"},
            "cut: expected auto, top:N or fraction:S with --backbone auto, .* got 'block4_pool'",
        ),
    ],
)
def test_a_bad_value_is_one_clear_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_recipe(**({"sources": ("sample:digits",)} | values))
    assert "\n" not in str(caught.value)


def test_defaults() -> None:
    recipe = make_recipe(sources=("sample:digits",))
    assert recipe.backbone == "vgg16"
    assert recipe.strategies == ("head", "top")


def test_workers_become_shards() -> None:
    recipe = make_recipe(sources=("sample:digits",), workers=3)
    assert recipe.arguments()["shards"] == [0, 1, 2]


@pytest.mark.parametrize("destination", ["/srv/models", "/srv/models/", "s3://bucket/models"])
def test_the_model_at_the_destination_is_the_champion(destination: str) -> None:
    recipe = make_recipe(sources=("sample:digits",), model_name="pets", destination=destination)
    assert recipe.arguments()["champion"] == f"{destination.rstrip('/')}/pets"
    named = recipe.model_copy(update={"champion": "gs://other/pets/3"})
    assert named.arguments()["champion"] == "gs://other/pets/3"


@pytest.mark.parametrize("option", ["sources", "mirrors", "destination", "champion", "weights",
                                    "ood_images", "work_dir", "fixes"])  # fmt: skip
def test_a_url_with_a_password_is_refused_without_showing_it(option: str) -> None:
    url = "s3://key:s3cret@bucket/a"
    values = {
        "sources": ("sample:digits",),
        option: (url,) if option in ("sources", "mirrors") else url,
    }
    with pytest.raises(InputError, match=f"{option}: expected a URL without user") as caught:
        make_recipe(**values)
    assert "s3cret" not in str(caught.value)
    assert "--secret-env" in str(caught.value)


def test_auto_chooses_the_backbone_or_the_image_size() -> None:
    assert not make_recipe(sources=("sample:digits",)).is_auto
    for values in ({"backbone": "auto"}, {"image_px": "auto"}):
        recipe = make_recipe(sources=("sample:digits",), cut="top:2", **values)
        assert recipe.is_auto
        assert {name: recipe.arguments()[name] for name in values} == values


def test_an_image_size_is_a_number_also_as_text() -> None:
    """The parameter of the pipeline is text, because it may be `auto`."""
    recipe = make_recipe(sources=("sample:digits",), image_px="96")
    assert (recipe.image_px, recipe.arguments()["image_px"]) == (96, "96")
    assert make_recipe(sources=("sample:digits",), image_px=96) == recipe
    # Kubeflow passes all numbers as floating point.
    assert make_recipe(sources=("sample:digits",), image_px=96.0) == recipe
