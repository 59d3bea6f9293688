"""Options of the gate that do not fit a dataset."""

from __future__ import annotations

from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.several_labels import check_label_options
from regraft_core.runtime.errors import InputError


def check_options(options: GateOptions, data: DatasetManifest) -> None:
    """Check that the options of the gate fit a dataset.

    Raises:
        InputError: they name unknown classes, need slices that it does not have, or are not for as
            many labels an image.
    """
    unknown = sorted(set(options.min_recall_by_class) - set(data.classes))
    if unknown:
        raise InputError(f"min_recall_by_class: expected names among {data.classes}, got {unknown}")
    check_label_options(options, data.labels_per_image)
    if options.min_accuracy_by_slice and not data.slices:
        raise InputError(
            "min_accuracy_by_slice: expected a dataset with slices, got one without; ingest it "
            "with --slices"
        )
