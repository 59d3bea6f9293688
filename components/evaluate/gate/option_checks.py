"""Options of the gate that do not fit a dataset."""

from __future__ import annotations

from regraft_core.formats.manifests import DatasetManifest
from regraft_core.formats.options import GateOptions
from regraft_core.runtime.errors import InputError

# Metrics of one prediction per image.
_ONE_LABEL = ("min_accuracy", "min_accuracy_by_slice", "corruption_images", "coverage",
              "abstain_precision")  # fmt: skip
_SEVERAL_LABELS = ("min_map", "min_macro_f1")


def check_options(options: GateOptions, data: DatasetManifest) -> None:
    """Check that the options of the gate fit a dataset.

    Raises:
        InputError: they name unknown classes, need slices that it does not have, or are not for as
            many labels an image.
    """
    unknown = sorted(set(options.min_recall_by_class) - set(data.classes))
    if unknown:
        raise InputError(f"min_recall_by_class: expected names among {data.classes}, got {unknown}")
    several = data.labels_per_image == "several"
    for name in _ONE_LABEL if several else _SEVERAL_LABELS:
        if value := getattr(options, name):
            found, fix = ("several labels", "min-map") if several else ("one label", "min-accuracy")
            option = name.replace("_", "-")
            raise InputError(
                f"{option}: not available with {found} an image, got {value}; use --{fix} instead"
                if name.startswith("min")
                else f"{option}: not available with {found} an image, got {value}; leave it out"
            )
    if options.min_accuracy_by_slice and not data.slices:
        raise InputError(
            "min_accuracy_by_slice: expected a dataset with slices, got one without; ingest it "
            "with --slices"
        )
