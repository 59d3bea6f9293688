"""What was chosen for a head and why, in sentences."""

from __future__ import annotations

import numpy as np

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head.head_selection import METHOD_NAMES, SolvedHead
from regraft_core.training.multilabel_head.label_selection import LabelHead

Solved = SolvedHead | LabelHead


def explain_head(solved: Solved, options: HeadOptions) -> list[str]:
    """Return in sentences what was chosen and why."""
    if isinstance(solved, LabelHead):
        return _explain_labels(solved)
    return _explain_classes(solved, options)


def _explain_labels(solved: LabelHead) -> list[str]:
    kind = (
        f"one logistic regression per label (one scale per {solved.scaling}, penalty "
        f"{solved.penalty:.1e})"
    )
    if not solved.trials:
        return [f"The head is {kind}: one group of images cannot be compared with others."]
    held_out = solved.held_out
    return [
        f"Of {len(solved.trials)} linear heads, {kind} on {solved.levels} was chosen in "
        f"{solved.folds}-fold cross-validation, with log loss {held_out['log_loss']:.4f} per "
        "label.",
        "The thresholds of the labels have the highest F1 for the images that were held out: macro "
        f"F1 {held_out['macro_f1']:.4f}, micro F1 {held_out['micro_f1']:.4f}.",
    ]


def _explain_classes(solved: SolvedHead, options: HeadOptions) -> list[str]:
    factor = solved.grown.factor if solved.grown else 1.0
    members = " and ".join(
        f"{METHOD_NAMES[trial.method]} (one scale per {trial.scaling}, penalty "
        f"{trial.penalty / factor:.1e})"
        for trial in solved.members
    )
    if not solved.trials:
        return [f"The head is a {members}: no class has two images to compare others by "
                "cross-validation."]  # fmt: skip
    mean = "the mean of " if len(solved.members) > 1 else ""
    sentences = [
        f"Of {len(solved.trials)} linear heads, {mean}{members} on {solved.levels} had the lowest "
        f"log loss in {solved.folds}-fold cross-validation: {solved.loss:.4f}, with accuracy "
        f"{solved.held_out['accuracy']:.4f}."
    ]
    if solved.grown:
        sentences.append(
            f"Fitted to {solved.grown.rows} rows, {factor:g} times the penalty of this choice had "
            f"the lowest log loss on other rows: {solved.grown.loss:.4f}."
        )
    if np.any(solved.offset):
        sentences.append(
            f"An offset of the logits serves {options.optimize}: "
            f"{solved.held_out[options.optimize]:.4f} in cross-validation, with accuracy "
            f"{solved.held_out['accuracy']:.4f}."
        )
    return sentences
