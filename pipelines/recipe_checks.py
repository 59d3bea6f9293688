"""The checks before a run starts, the same for `run`, `compile` and `submit`.

They need no data: everything about a recipe that this machine can know, so that a run fails before
it starts. What only the steps' machines can know, such as rights for a bucket, the first step
`resolve` checks there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from components.ingest.sources.label_lists import LabelForm
from components.ingest.sources.table_columns import TableColumns
from pipelines.recipes.recipe import Recipe
from regraft_core.backbones.at_hand import IMAGENET, backbones_at_hand, check_package
from regraft_core.backbones.backbone_table import (
    AUTO,
    backbone_path,
    find_backbone,
    fixed_px,
    is_location,
)
from regraft_core.backbones.weights import parse_location
from regraft_core.formats.engine_packages import check_engine_package
from regraft_core.formats.export_packages import check_format_packages
from regraft_core.formats.fixes import read_fixes, split_location
from regraft_core.formats.several_labels import check_label_options
from regraft_core.runtime.addresses import is_remote, local_path, with_variables
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.machine import check_bfloat16
from regraft_core.runtime.nvidia_smi import read_driver
from regraft_core.runtime.object_stores import check_scheme, is_store_uri, open_store_uri
from regraft_core.runtime.quiet_start import quiet_start
from regraft_core.sources.kinds import SAMPLE_NAMES, drive_id, kind_of_source
from regraft_core.tracking.mlflow_log import check_mlflow_package

_WEIGHTS_BY_NAME = (IMAGENET, "random")
_PATHS_ONLY = ("weights", "backbone")


def check_recipe(
    recipe: Recipe, has_mounted: Callable[[str], bool] | None = None, *, containers: bool = False
) -> None:
    """Check a recipe before its run starts.

    Args:
        recipe: all options of the run.
        has_mounted: whether the pods of a cluster can access a path; None if the steps run on this
            machine.
        containers: the steps run on this machine, but with the packages of the container image.

    Raises:
        InputError: the steps cannot access a path, a package or a GPU is missing, the backbone does
            not have the cut point or cannot be chosen, the champion has other classes, or an option
            is not for several labels an image.
    """
    locations = list(_locations(recipe))
    for name, location in locations:
        if is_remote(location):
            check_scheme(name, location)
            if has_mounted is None:
                with_variables(name, location)  # they are set
        elif has_mounted is None:
            _check_on_this_machine(name, location)
        elif not has_mounted(location):
            expected = "a path" if name in _PATHS_ONLY else "a URI, or a path"
            raise InputError(
                f"{name}: expected {expected} in a mounted --pvc, because a cluster cannot read "
                f"this machine; got {location!r}"
            )
    if has_mounted is None and not containers:
        _check_packages(recipe, [location for _, location in locations])
        check_gpu(recipe.require_gpu)
    if has_mounted is None:
        _check_champion(recipe)
    _check_labels(recipe, elsewhere=has_mounted is not None or containers)
    _check_backbone(recipe, on_cluster=has_mounted is not None, containers=containers)
    _check_cut(recipe, has_files=has_mounted is None and not containers)
    if recipe.min_accuracy_by_slice and not recipe.slices:
        raise InputError("min_accuracy_by_slice: expected --slices to name the slices, got none")


def _locations(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the paths and URIs of a recipe with the names of their options."""
    for source in (*recipe.sources, *recipe.mirrors):
        if not (source in SAMPLE_NAMES or drive_id(source)):
            yield "source", source
    if path := backbone_path(recipe.backbone):
        yield "backbone", path
    if recipe.weights not in _WEIGHTS_BY_NAME:
        yield "weights", str(parse_location(recipe.weights)[0])
    if recipe.fixes:
        yield "fixes", split_location(recipe.fixes)[0]
    for name in ("destination", "champion", "ood_images", "work_dir"):
        if location := getattr(recipe, name):
            yield name, location


def _check_on_this_machine(name: str, location: str) -> None:
    path = local_path(location)
    if name == "source":
        kind_of_source(location)
    elif name in ("weights", "backbone", "ood_images") and not path.exists():
        raise InputError(f"{name}: expected a file or folder, found none at {location}")
    elif name == "fixes":
        read_fixes(location)
    elif name in ("destination", "work_dir"):
        check_folder(name, path)


def check_folder(name: str, folder: Path) -> None:
    """Check that a folder can be made, or written to; nothing is written.

    Raises:
        InputError: it is a file or below one, or there is no permission.
    """
    nearest = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise InputError(f"{name}: cannot write to {folder}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{name}: cannot write to {folder}: no permission for {nearest}")


def _check_packages(recipe: Recipe, locations: list[str]) -> None:
    """Check that this machine has the packages and the processor for a run; nothing is sent."""
    for location in locations:
        if is_store_uri(location):
            open_store_uri(location)
    check_format_packages(recipe.formats)
    check_engine_package(recipe.feature_engine)
    check_engine_package(recipe.serving_engine, "serving-engine")
    if recipe.mlflow:
        check_mlflow_package()
    if recipe.serving_precision == "bfloat16":
        check_bfloat16("serving-precision")
    if recipe.precision == "bfloat16" and read_driver() is None:  # a GPU may compute in it
        check_bfloat16("precision")


def _check_champion(recipe: Recipe) -> None:
    """Compare classes and labels of the sources with a champion's, if both are on this machine.

    Archives and remote sources show them only to `ingest`, which then compares them.
    """
    from components.ingest.sources.source_classes import find_classes, have_several_labels
    from regraft_core.formats.champion_classes import find_champion_classes

    location = recipe.arguments()["champion"]
    champion = None if is_store_uri(location) else find_champion_classes(location)
    if champion is None:
        return
    columns = _columns(recipe)
    classes = find_classes(recipe.sources, recipe.folders, columns)
    if classes is not None:
        several = have_several_labels(recipe.sources, recipe)
        champion.check(classes, "several" if several else "one")


def _columns(recipe: Recipe) -> TableColumns:
    """Return the columns of a table that have the labels."""
    form = LabelForm(recipe.label_columns, recipe.label_separator)
    return TableColumns(label=recipe.label_column.strip().lower(), form=form)


def _check_labels(recipe: Recipe, *, elsewhere: bool) -> None:
    """Check options that do not fit the labels of an image, if the options or a source show them.

    Steps that run elsewhere may have packages to read tables that this process lacks.
    """
    from components.ingest.sources.source_classes import find_classes, have_several_labels

    sources = () if elsewhere else recipe.sources
    if have_several_labels(sources, recipe):
        check_label_options(recipe, "several")
        return
    has_minimum = recipe.min_map or recipe.min_macro_f1
    columns = _columns(recipe)
    if sources and has_minimum and find_classes(sources, recipe.folders, columns) is not None:
        check_label_options(recipe, "one")


def _check_backbone(recipe: Recipe, *, on_cluster: bool, containers: bool) -> None:
    """Check that a run can choose its backbone and image size, or has the package it needs."""
    apart = "on a cluster" if on_cluster else "and work_dir in a bucket"
    if recipe.is_auto and recipe.workers > 1 and (on_cluster or is_store_uri(recipe.work_dir)):
        option = "backbone" if recipe.backbone == AUTO else "image_px"
        raise InputError(
            f"workers: expected 1 with {option} auto {apart}, because each worker would choose "
            f"for itself, got {recipe.workers}; choose in a run with 1 worker, then name the choice"
        )
    if on_cluster or containers:
        return
    if recipe.backbone == AUTO:
        backbones_at_hand(recipe.weights, fixed_px(recipe.image_px))
        return
    row = find_backbone(recipe.backbone, recipe.scaling)
    row.side_px(fixed_px(recipe.image_px))
    if row.source == "saved_model" and recipe.strategies != ("head",):
        raise InputError(
            f"strategies: a SavedModel such as {row.label} is never trained; use --strategies head"
        )
    if recipe.weights == IMAGENET:
        check_package(row)


def _check_cut(recipe: Recipe, *, has_files: bool) -> None:
    """Check that the backbone has the cut point; similar names are suggested.

    Loading TensorFlow takes seconds, so it is not loaded for cuts that are known. With backbone
    `auto`, the step that chooses the backbone finds the cut, and so does the step that reads the
    file of a backbone if this machine does not have it.
    """
    if AUTO in (recipe.backbone, recipe.cut):
        return
    if is_location(recipe.backbone) and not has_files:
        return
    row = find_backbone(recipe.backbone, recipe.scaling)
    if recipe.cut in row.known_cuts or row.source == "saved_model":
        return
    with quiet_start():
        from regraft_core.backbones.build import build_backbone
        from regraft_core.backbones.cuts import find_cut

        set_up_gpus(GpuSetup())  # otherwise this process would take the card from the steps
        model = build_backbone(row, fixed_px(recipe.image_px), "random")
    find_cut(model, recipe.cut)
