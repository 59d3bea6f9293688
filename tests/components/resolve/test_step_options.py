"""The options of the steps are those of a run, each with the type that the pipeline gives it."""

from __future__ import annotations

import inspect
import json
from typing import Any, Dict, List  # noqa: UP035 - as in the component

import pytest

from components.resolve.component import resolve
from components.resolve.step_options import step_options
from pipelines.pipeline_parameters import with_parameters
from pipelines.recipes.default_arguments import DEFAULTS
from pipelines.recipes.recipe import OPTION_FIELDS, make_recipe
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.runtime.errors import InputError

KINDS = {
    "ingest": IngestOptions, "extract_features": FeatureOptions, "train_head": HeadOptions,
    "fine_tune": FineTuneOptions, "evaluate": GateOptions, "export": ExportOptions,
    "verify": VerifyOptions, "publish": PublishOptions,
}  # fmt: skip


def values(**changes: Any) -> dict[str, Any]:
    recipe = make_recipe(sources=("sample:digits",), **changes)
    return {**recipe.arguments(), "workers": recipe.workers, "run_id": ""}


def annotations(function: Any) -> dict[str, Any]:
    return {n: one.annotation for n, one in inspect.signature(function).parameters.items()}


def test_the_inputs_of_the_component_are_the_options_of_a_run() -> None:
    @with_parameters(OPTION_FIELDS, DEFAULTS)
    def pipeline(options: dict[str, Any]) -> None:
        """Only its parameters are used."""

    expected = {
        name: one.annotation for name, one in inspect.signature(pipeline).parameters.items()
    }
    names = {list[str]: List[str], list[int]: List[int], dict[str, float]: Dict[str, float]}  # noqa: UP006
    found = {
        name: one.annotation
        for name, one in inspect.signature(resolve.python_func).parameters.items()
    }
    assert (found.pop("workers"), found.pop("run_id")) == (int, str)
    assert found == {name: names.get(kind, kind) for name, kind in expected.items()}


def test_each_step_has_an_output_with_its_options() -> None:
    options = step_options(values())
    assert set(resolve.component_spec.outputs) == set(options)
    assert json.loads(json.dumps(options)) == options


def test_only_values_that_are_not_defaults_are_passed_and_the_step_fills_in_the_others() -> None:
    given = values(seed=7, min_accuracy=0.9, batch_size=8, strategies=("head",), image_px=64)
    options = step_options(given)
    assert "views" not in options["extract_features"]
    for step, kind in KINDS.items():
        filled_in = select_options(kind, options[step])
        own = {name: given[name] for name in kind.model_fields if name in given}
        assert filled_in == select_options(kind, {**own, **options[step]})


def test_a_value_reaches_the_steps_that_use_it() -> None:
    options = step_options(values(seed=7, min_accuracy=0.9, workers=3, destination="/m"))
    assert {step for step, own in options.items() if own.get("seed") == 7} == {
        "ingest", "extract_features", "train_head", "fine_tune", "evaluate",
    }  # fmt: skip
    assert options["evaluate"]["min_accuracy"] == 0.9
    assert options["extract_features"]["workers"] == 3
    assert options["publish"]["destination"] == "/m"


@pytest.mark.parametrize(
    ("strategies", "keep_cut"),
    [(("head",), False), (("auto", "head"), True), (("top",), True)],
)
def test_features_are_those_that_head_and_strategies_need(
    strategies: tuple[str, ...], keep_cut: bool
) -> None:
    given = values(strategies=strategies, pooling="gmp")
    options = select_options(FeatureOptions, step_options(given)["extract_features"])
    assert (options.keep_cut, list(options.poolings)) == (keep_cut, ["gmp"])


def test_an_invalid_value_is_one_line() -> None:
    with pytest.raises(InputError, match="folds: expected"):
        step_options({**values(), "folds": 1})


@pytest.mark.parametrize(("budget", "keep_cut"), [("10m", True), ("", False)])
def test_a_search_has_activations_at_the_cut_whatever_the_strategies(
    budget: str, keep_cut: bool
) -> None:
    options = step_options(values(strategies=("head",), budget=budget))
    assert select_options(FeatureOptions, options["extract_features"]).keep_cut is keep_cut
    assert select_options(HeadOptions, options["train_head"]).budget == budget
    assert select_options(FineTuneOptions, options["fine_tune"]).budget == budget
