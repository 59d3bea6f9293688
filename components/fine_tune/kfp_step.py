"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.fine_tune import SHARED_STRATEGIES, FineTuneOptions
from regraft_core.formats.stored_artifacts import keep, origin_of
from regraft_core.parallel.ray_executor import ray_nodes
from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.step_reports import run_step


def run(
    options: Mapping[str, Any], dataset: Any, features: Any, head: Any, candidates: Any
) -> None:
    """Run the step; the arguments are those of the component `fine_tune`."""
    with run_step("fine_tune"):
        checked = [
            select_options(FineTuneOptions, {**options, "strategy": strategy})
            for strategy in options["strategies"]
        ]
        check_gpu(checked[0].require_gpu)
        inputs = dataset.path, features.path, head.path, candidates.path
        if checked[0].budget:
            from components.fine_tune.search.search_candidates import search_candidates

            manifest = search_candidates(*inputs, checked[0])
        else:
            from components.fine_tune.candidates import fine_tune_all

            folder, work_dir = Path(candidates.path).parent, checked[0].work_dir
            shared = any(one.strategy in SHARED_STRATEGIES for one in checked)
            cluster = ray_nodes(folder, *inputs[:3], written=work_dir)
            with cluster if shared else contextlib.nullcontext() as nodes:
                manifest = fine_tune_all(*inputs, checked, nodes)
        candidates.metadata.update(digest=manifest.digest)
        name = f"candidates-{manifest.digest[:32]}"
        origin = origin_of("fine_tune", options, dataset, features, head)
        keep(candidates, name, manifest.file_name, origin)
