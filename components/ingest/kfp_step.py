"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from components.ingest.ingest import ingest
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options import IngestOptions
from regraft_core.formats.stored_artifacts import keep
from regraft_core.runtime.step_reports import run_step


def run(options: Mapping[str, Any], dataset: Any, data_card: Any) -> None:
    """Run the step; the arguments are those of the component `ingest`."""
    with run_step("ingest"):
        manifest = ingest(options["sources"], dataset.path, select_options(IngestOptions, options))
        shutil.copyfile(f"{dataset.path}/data_card.html", data_card.path)
        dataset.metadata |= {"digest": manifest.digest, "classes": len(manifest.classes)}
        dataset.metadata |= {split: info.count for split, info in manifest.splits.items()}
        name = f"dataset-{manifest.digest[:32]}"
        keep(dataset, options.get("work_dir", ""), name, manifest.file_name, "*.tfrecord")
