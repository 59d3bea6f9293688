"""The KFP component `ingest`."""

from typing import Dict

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(options: Dict, dataset: Output[Dataset], data_card: Output[HTML]) -> None:
    """Read labeled images, validate and split them, and store them in shards.

    Args:
        options: `IngestOptions`, and `sources`, `source_state` (of the sources, so that a change
            invalidates the cache), `work_dir`, and `champion`, whose classes must be the same.
        dataset: TFRecord shards by split, with dataset.json and quarantine.csv.
        data_card: A page that describes the dataset.
    """
    from components.ingest.kfp_step import run

    run(options, dataset, data_card)
