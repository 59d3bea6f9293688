"""Learning curves next to a model: `history.csv` for any program, and logs for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from regraft_core.formats.manifests.model import Epoch

HISTORY_FILE = "history.csv"
LOGS_FOLDER = "logs"
SCALARS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


def write_curves(history: Sequence[Epoch], folder: Path) -> None:
    """Write `history` into `folder` as `history.csv` and `logs/<phase>/`.

    The logs are written as raw records, because TensorBoard need not be installed here.
    """
    with open(folder / HISTORY_FILE, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(Epoch.model_fields))
        table.writeheader()
        table.writerows(epoch.model_dump() for epoch in history)
    summary = tf.compat.v1.Summary
    for phase in dict.fromkeys(epoch.phase for epoch in history):
        writer = tf.summary.create_file_writer(str(folder / LOGS_FOLDER / phase))
        with writer.as_default():
            for epoch in history:
                if epoch.phase == phase:
                    values = [summary.Value(tag=tag, simple_value=getattr(epoch, tag))
                              for tag in SCALARS]  # fmt: skip
                    record = summary(value=values).SerializeToString()
                    tf.summary.experimental.write_raw_pb(record, step=epoch.epoch)
        writer.close()
