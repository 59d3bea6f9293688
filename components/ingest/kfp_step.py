"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.ingest.ingest import ingest
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.stored_artifacts import keep, origin_of, pass_page
from regraft_core.parallel.ray_executor import ray_executor
from regraft_core.runtime.addresses import is_remote
from regraft_core.runtime.step_reports import run_step


def run(options: Mapping[str, Any], dataset: Any, data_card: Any) -> None:
    """Run the step; the arguments are those of the component `ingest`."""
    with run_step("ingest"):
        checked = select_options(IngestOptions, options)
        champion = options.get("champion", "")
        sources = options["sources"]
        # Remote sources are read from there.
        downloads = checked.download_cache if any(map(is_remote, sources)) else ""
        with ray_executor(Path(dataset.path).parent, *sources, downloads) as executor:
            manifest = ingest(sources, dataset.path, checked, champion, executor)
        pass_page(dataset, "data_card.html", data_card)
        dataset.metadata |= {"digest": manifest.digest, "classes": len(manifest.classes)}
        dataset.metadata |= {split: info.count for split, info in manifest.splits.items()}
        shards = [shard.sha256 for info in manifest.splits.values() for shard in info.shards]
        # The digest covers images and labels, but not the paths in the records.
        name = f"dataset-{digest_of([manifest.digest, shards])[:32]}"
        origin = origin_of("ingest", options)
        keep(dataset, name, manifest.file_name, origin, small=("*.json", "*.csv"))
