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
            invalidates the cache) and `work_dir`.
        dataset: TFRecord shards by split, with dataset.json and quarantine.csv.
        data_card: A page that describes the dataset.
    """
    import shutil

    from components.ingest.ingest import ingest as run
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import IngestOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step

    with run_step("ingest"):
        manifest = run(options["sources"], dataset.path, select_options(IngestOptions, options))
        shutil.copyfile(f"{dataset.path}/data_card.html", data_card.path)
        dataset.metadata |= {"digest": manifest.digest, "classes": len(manifest.classes)}
        dataset.metadata |= {split: info.count for split, info in manifest.splits.items()}
        name = f"dataset-{manifest.digest[:32]}"
        keep(dataset, options.get("work_dir", ""), name, manifest.file_name, "*.tfrecord")
