"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.stored_artifacts import keep, origin_of
from regraft_core.parallel.ray_executor import ray_executor
from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.step_reports import run_step


def run(options: Mapping[str, Any], dataset: Any, features: Any, shard: int) -> None:
    """Run the step; the arguments are those of the component `extract_features`."""
    with run_step("extract_features"):
        checked = select_options(FeatureOptions, options)
        workers = int(options.get("workers", 1))  # numbers in a dict arrive as float
        check_gpu(checked.require_gpu)
        from components.extract_features.extract_features import extract_features

        folder = Path(features.path).parent
        with ray_executor(folder, dataset.path, checked.work_dir) as executor:
            manifest = extract_features(
                dataset.path, features.path, checked, shard, workers, executor
            )
        features.metadata.update(digest=manifest.digest, cut=manifest.cut or "")
        name = f"features-{manifest.digest[:32]}"
        origin = origin_of("extract_features", options, dataset)
        keep(features, name, manifest.file_name, origin)
