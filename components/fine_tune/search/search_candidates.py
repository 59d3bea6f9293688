"""Makes the candidates of a run with a budget: the head, and the best training of a search."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import keras

from components.fine_tune.candidate import (
    TrainedCandidate,
    write_candidate,
    write_candidates,
)
from components.fine_tune.fine_tune import fine_tune, load_parts
from components.fine_tune.search.budget import Budget, used_seconds
from components.fine_tune.search.search import NO_ROOM, Search, Winner
from components.fine_tune.strategies import Parts
from components.fine_tune.training_precision import half_precision
from regraft_core.formats.manifest_storage import staged_folder
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.formats.option_parsing import parse_duration
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.allocator import keep_freed_memory
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.batch_limit import fitting_batch
from regraft_core.training.distribution import distribution_strategy
from regraft_core.training.feature_store import feature_folders, read_manifests
from regraft_core.training.ood_detector import detector_layers, detector_sample
from regraft_core.training.winograd import winograd

SEARCHED = "search"
# The time to write a candidate varies with the load of the machine.
RESERVE_FACTOR = 1.5


@explain_out_of_memory()
def search_candidates(
    dataset: str | os.PathLike[str],
    features: str | os.PathLike[str],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FineTuneOptions,
    now: Callable[[], float] = time.perf_counter,
) -> CandidatesManifest:
    """Write the candidate `head` and, if the search finds a better training, `search`.

    `now` is the clock of the search.

    Raises:
        InputError: as `fine_tune`, or a checkpoint is damaged.
        RegraftError: the memory is exhausted.
    """
    clock = Clock()
    keep_freed_memory()
    folders = feature_folders(features)
    manifests = read_manifests(folders)
    used = used_seconds(manifests, ModelManifest.read(head))
    budget = Budget(parse_duration(options.budget), used, now)
    log_progress(
        f"fine_tune search: {max(budget.left, 0.0):.0f} s are left of the budget of "
        f"{budget.seconds:.0f} s; extraction and head took {used:.0f} s"
    )
    with staged_folder(out) as folder:
        kept = options.model_copy(update={"strategy": "head"})
        digests = {"head": fine_tune(dataset, folders, head, folder / "head", kept).digest}
        written_s = clock.seconds
        keras.backend.clear_session()
        set_up_gpus(GpuSetup.of(options))
        with distribution_strategy(SEARCHED).scope():
            keras.utils.set_random_seed(options.seed)
            loaded = Clock()
            parts = load_parts(dataset, folders, head)
            # The head was loaded, too, before it was written.
            reserve = RESERVE_FACTOR * max(written_s - loaded.seconds, 1.0) + _measuring_s(parts)
            search, winner, batch_size = _search(parts, options, budget, reserve, now)
            sentence, measured = _describe(search, winner, budget)
            if winner is None:
                _add_to_head(folder / "head", sentence, measured)
            else:
                found = _candidate(winner, options, batch_size, sentence, measured)
                out_folder = folder / SEARCHED
                written = write_candidate(winner.part.of(parts), head, out_folder, found, clock)
                digests[SEARCHED] = written.digest
        keras.backend.clear_session()
        manifest = write_candidates(folder, digests, clock)
    log_progress(f"fine_tune search: {budget.used:.0f} s of {budget.seconds:.0f} s are used")
    return manifest


def _search(
    parts: Parts,
    options: FineTuneOptions,
    budget: Budget,
    reserve: float,
    now: Callable[[], float],
) -> tuple[Search, Winner | None, int]:
    """Search with the batch size, or with half of it as often as the memory is exhausted."""
    first = fitting_batch(
        "fine_tune search", options.batch_size, parts.complete, options.gpu_memory_mb,
        half=bool(half_precision(options)),
    )  # fmt: skip
    start = parts.complete.get_weights()

    def run(batch_size: int) -> tuple[Search, Winner | None]:
        parts.complete.set_weights(start)
        sized = options.model_copy(update={"batch_size": batch_size})
        search = Search(parts, sized, budget, reserve, now)
        return search, search.run()

    with winograd(parts.backbone.layers):
        (search, winner), batch_size = with_halved_batches("fine_tune search", first, run)
    return search, winner, batch_size


def _measuring_s(parts: Parts) -> float:
    """Return the seconds of the detector and of all validation images, by those of extraction."""
    splits = DatasetManifest.read(parts.dataset).splits
    counts = [splits[split].count for split in ("train", "validation")]
    width = sum(detector_layers(parts.features.levels).values()) or parts.features.feature_map[-1]
    rows = sum(len(detector_sample(count, width, 0)) for count in counts)
    extracted = sum(shard.count for shard in parts.features.shards)
    image_s = parts.features.made_by.seconds / max(extracted, 1)
    return image_s * (rows + 2 * counts[1])


def _candidate(
    winner: Winner, options: FineTuneOptions, batch_size: int, sentence: str,
    measured: dict[str, Any],
) -> TrainedCandidate:  # fmt: skip
    used = {"strategy": winner.part.strategy, "batch_size": batch_size,
            "learning_rate": winner.learning_rate}  # fmt: skip
    measured |= {"against_head": asdict(winner.against_head)}
    return TrainedCandidate(
        winner.part.strategy, SEARCHED, winner.history, winner.loss, winner.accuracy,
        options.model_dump() | used, [sentence], measured,
    )  # fmt: skip


def _add_to_head(folder: os.PathLike[str], sentence: str, measured: dict[str, Any]) -> None:
    """Record a search without a result in the manifest of the head, which is the model."""
    manifest = ModelManifest.read(folder)
    log_progress(f"fine_tune: {sentence}")
    manifest.model_copy(
        update={"reasoning": [*manifest.reasoning, sentence],
                "measurements": manifest.measurements | measured}
    ).write(folder)  # fmt: skip


def _describe(search: Search, winner: Winner | None, budget: Budget) -> tuple[str, dict[str, Any]]:
    """Return the search in a sentence, and its measurements."""
    trials, seconds = search.trials, budget.used - budget.used_before
    best = (
        f"{winner.part.name} at a learning rate of {winner.learning_rate:.0e} had the lowest "
        f"validation loss, {winner.against_head} to the head's"
        if winner
        else "none was better than the head in loss and accuracy"
    )
    count = "1 training" if len(trials) == 1 else f"{len(trials)} trainings"
    sentence = (
        f"Nothing was trained, because {NO_ROOM}."
        if search.stopped == NO_ROOM
        else f"Of {count} in {seconds:.0f} s, {best}; {search.stopped} ({budget.seconds:.0f} s "
        "with extraction and head)."
    )
    measured = {
        "budget_s": budget.seconds, "used_before_s": budget.used_before, "seconds": seconds,
        "stopped": search.stopped,
        "trials": [trial.measurements() for trial in trials],
    }  # fmt: skip
    precisions = {"precision": search.precisions} if search.precisions else {}
    return sentence, {"search": measured | precisions}
