"""The backbone and the image size of a run with `auto`: measured on a sample of the images.

The choice is kept in the content store, so that all workers of a run, and later runs on the same
images, have the same. The milliseconds are of the machine that measured them, and not part of what
identifies a choice.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from components.extract_features.backbone_trials import (
    SAMPLE_IMAGES,
    Measured,
    Sample,
    measure,
    read_sample,
    sizes_to_compare,
)
from regraft_core.backbones.at_hand import IMAGENET, backbones_at_hand, has_imagenet_weights
from regraft_core.backbones.backbone_table import AUTO, Backbone, find_backbone, fixed_px
from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.manifest_storage import digest_of, write_text
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import BackboneChoice, BackboneTrial
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.stored_artifacts import save_work
from regraft_core.runtime.safe_files import lock_file
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.intervals import difference_interval, wilson_interval

CHOICE_FILE, LOCK_FILE = "choice.json", ".lock"
LITTLE = 0.01
"""The largest difference in accuracy for which the faster one may be chosen."""


def choose_backbone(
    dataset: Path, data: DatasetManifest, options: FeatureOptions
) -> tuple[FeatureOptions, BackboneChoice | None]:
    """Return the options with a backbone and an image size, and how these were chosen.

    Raises:
        InputError: no backbone has weights on this machine, or the weights do not match.
        DataError: no class has two training images.
    """
    if AUTO not in (options.backbone, options.image_px):
        return options, None
    candidates = _candidates(options)
    compared = ("candidates", "image_px", "levels", "poolings", "precision", "seed")
    key = [data.digest, candidates, options.model_dump(include=set(compared)), SAMPLE_IMAGES]
    folder = checkpoint_folder(options.work_dir, "backbones", digest_of([*key, VERSION]))
    with _alone(folder):
        choice, before = _read(folder), "compared before on these images: "
        if choice is None:
            choice, before = _choose(dataset, data, candidates, options), ""
            if folder is not None:
                write_text(folder / CHOICE_FILE, choice.model_dump_json(indent=2) + "\n")
                save_work(folder)
    for trial in choice.trials if not before else ():
        log_progress(f"extract_features: {describe(trial)}")
    log_progress(f"extract_features: {before}{choice.sentence}")
    return options.model_copy(update=_chosen(choice, candidates, options)), choice


def describe(trial: BackboneTrial) -> str:
    """Return a row of the table in one line."""
    mark = ", chosen" if trial.chosen else ""
    return (
        f"{short_name(trial.backbone)} at {trial.image_px} px: accuracy {trial.accuracy:.4f} "
        f"({trial.accuracy_low:.4f} to {trial.accuracy_high:.4f}), {trial.image_ms:.2f} ms per "
        f"image, {trial.mb:.1f} MB{mark}"
    )


def rank(measured: Sequence[Measured]) -> list[BackboneTrial]:
    """Return the trials, the most accurate first.

    The fastest of those is chosen that are not significantly less accurate than the first (the 95%
    interval of the difference on the same images contains zero), and at most `LITTLE` less: few
    images show no significant difference even where it is large.
    """
    ordered = sorted(measured, key=lambda one: (-int(one.correct.sum()), one.image_ms))
    best = ordered[0]
    differences = [
        difference_interval(
            int((best.correct & ~one.correct).sum()), int((one.correct & ~best.correct).sum()),
            len(best.correct),
        )
        for one in ordered
    ]  # fmt: skip
    trials = [_trial(*pair) for pair in zip(ordered, differences, strict=True)]
    chosen = min(_equal(trials), key=lambda trial: trial.image_ms)
    return [trial.model_copy(update={"chosen": trial is chosen}) for trial in trials]


def _equal(trials: Sequence[BackboneTrial]) -> list[BackboneTrial]:
    """Return those that are about as accurate as the first."""
    least = trials[0].accuracy - LITTLE
    return [one for one in trials if one.difference_low <= 0 and one.accuracy >= least]


def _trial(one: Measured, difference: tuple[float, float]) -> BackboneTrial:
    correct, total = int(one.correct.sum()), len(one.correct)
    low, high = wilson_interval(correct, total)
    return BackboneTrial(
        backbone=one.row.name, weights=one.weights, image_px=one.image_px,
        accuracy=correct / total, accuracy_low=low, accuracy_high=high,
        difference_low=difference[0], difference_high=difference[1],
        image_ms=one.image_ms, mb=one.mb, chosen=False,
    )  # fmt: skip


def _candidates(options: FeatureOptions) -> dict[str, str]:
    """Return the backbones to compare, each with its weights."""
    if options.backbone != AUTO:
        return {options.backbone: options.weights}
    return options.candidates or backbones_at_hand(options.weights, fixed_px(options.image_px))


def _choose(
    dataset: Path, data: DatasetManifest, candidates: dict[str, str], options: FeatureOptions
) -> BackboneChoice:
    clock = Clock()
    if len(candidates) == 1 and options.image_px != AUTO:
        only = short_name(next(iter(candidates)))
        return _without_trials(f"{only} is chosen: only its weights are on this machine.")
    sample = read_sample(dataset, data)
    pairs = list(_pairs(candidates, sample, options))
    if len(pairs) == 1 and pairs[0][0].one_size:
        return _without_trials(
            f"{pairs[0][2]} px is chosen: {pairs[0][0].label} has no other size."
        )
    log_progress(
        f"extract_features: comparing {len(pairs)} backbones and image sizes on "
        f"{len(sample.records)} training images"
    )
    measured = [measure(*pair, sample, options) for pair in pairs]
    trials = rank(measured)
    log_progress(f"extract_features: compared in {clock.seconds:.1f} s")
    return BackboneChoice(
        images=len(sample.records), folds=sample.folds, trials=trials, sentence=_sentence(trials)
    )


def _without_trials(sentence: str) -> BackboneChoice:
    return BackboneChoice(images=0, folds=0, trials=[], sentence=sentence)


def _pairs(
    candidates: dict[str, str], sample: Sample, options: FeatureOptions
) -> Iterator[tuple[Backbone, str, int]]:
    """Yield the backbones with their weights and image sizes; nothing unasked is downloaded."""
    for name, weights in candidates.items():
        row = find_backbone(name, options.scaling)
        if options.image_px != AUTO:
            yield row, weights, row.side_px(fixed_px(options.image_px))
            continue
        for image_px in sizes_to_compare(row, sample):
            missing = (row.source == "table" and weights == IMAGENET
                       and not has_imagenet_weights(row, image_px))  # fmt: skip
            if options.backbone != AUTO or not missing:
                yield row, weights, image_px


def _sentence(trials: Sequence[BackboneTrial]) -> str:
    """Return what was chosen and why."""
    best, chosen = trials[0], next(trial for trial in trials if trial.chosen)
    name, equal = f"{short_name(chosen.backbone)} at {chosen.image_px} px", len(_equal(trials))
    if equal == 1:
        rest = "others" if len(trials) > 2 else "the other"
        return f"{name} is chosen: it is more accurate than {rest} on the same held-out images."
    if chosen is best:
        return (
            f"{name} is chosen: it is the most accurate, and the fastest of {equal} that differ "
            "little on the same held-out images."
        )
    return (
        f"{name} is chosen: it is the fastest of {equal} that differ little from the most "
        f"accurate, {short_name(best.backbone)} at {best.image_px} px, on the same held-out images."
    )


def _chosen(
    choice: BackboneChoice, candidates: dict[str, str], options: FeatureOptions
) -> dict[str, str | int | dict[str, str]]:
    """Return the values of the options that were chosen."""
    found = next((trial for trial in choice.trials if trial.chosen), None)
    name = found.backbone if found else next(iter(candidates))
    image_px = found.image_px if found else fixed_px(options.image_px)
    return {
        "backbone": name, "weights": candidates[name], "image_px": image_px, "candidates": {},
    }  # fmt: skip


def _read(folder: Path | None) -> BackboneChoice | None:
    """Return the choice that a folder contains; None if it has none, or one of another version."""
    try:
        text = (folder / CHOICE_FILE).read_text(encoding="utf-8") if folder else ""
        return BackboneChoice.model_validate_json(text)
    except (OSError, ValidationError):
        return None


@contextlib.contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Let one process of this machine choose; others wait for its choice.

    Some network volumes have no locks; a single worker needs none.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / LOCK_FILE) as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
