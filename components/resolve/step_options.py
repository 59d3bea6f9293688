"""The options of each step, from the options of the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.options.option_types import Options
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.options.verify import VerifyOptions


def step_options(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each step, checked, as values of JSON.

    A step fills in the defaults, so only other values are among its options: Kubeflow stores these
    several times for each worker.

    Args:
        values: all options of a run.

    Raises:
        InputError: a value is invalid.
    """

    def of(kind: type[Options], *others: str, **derived: Any) -> dict[str, Any]:
        checked = select_options(kind, {**values, **derived})
        options = checked.model_dump(mode="json", exclude_defaults=True)
        return options | {name: values[name] for name in others}

    keep_cut = bool(values["budget"] or {"top", "auto"} & set(values["strategies"]))
    record = {name: values[name] for name in ("destination", "model_name", "run_id")}
    return {
        "ingest": of(IngestOptions, "sources", "work_dir", "champion"),
        "extract_features": of(
            FeatureOptions, "workers", keep_cut=keep_cut, poolings=(values["pooling"],)
        ),
        "train_head": of(HeadOptions),
        "fine_tune": of(FineTuneOptions, "strategies"),
        "evaluate": of(GateOptions, "work_dir"),
        "export": of(ExportOptions, "work_dir"),
        "verify": of(VerifyOptions, "work_dir"),
        "publish": of(PublishOptions, "work_dir") | record,
        "record_verdict": record,
    }
