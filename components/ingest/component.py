"""The KFP component of the step."""

from typing import List

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    sources: List[str],
    dataset: Output[Dataset],
    data_card: Output[HTML],
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    min_per_class: int = 1,
    max_invalid_fraction: float = 0.05,
    max_pixels: int = 100_000_000,
    near_duplicates: str = "group",
    leakage: str = "repair",
    seed: int = 0,
    processes: int = 0,
    sha256: str = "",
    mirrors: List[str] = [],  # noqa: B006
    download_cache: str = "~/.cache/regraft",
    download_timeout_s: float = 30.0,
    download_deadline_s: float = 21_600.0,
    download_attempts: int = 5,
    download_backoff_s: float = 1.0,
    max_archive_bytes: int = 1 << 40,
    max_archive_members: int = 1_000_000,
    source_state: str = "",
    work_dir: str = "",
) -> None:
    """Read labeled images, validate and split them, and store them in shards.

    Args:
        sources: Folders, archives, URLs, tables (CSV, Parquet) or samples.
        dataset: TFRecord shards by split, with dataset.json and quarantine.csv.
        data_card: A page that describes the dataset.
        validation_fraction: Fraction of images for the validation split.
        test_fraction: Fraction of images for the test split.
        min_per_class: Minimum number of images of a class in each split.
        max_invalid_fraction: Largest fraction of invalid files; the step fails above it.
        max_pixels: Largest number of pixels of an image that is decoded.
        near_duplicates: Near duplicates; group (keep in one split), report or off.
        leakage: Duplicates in several splits of the source; repair, report or fail.
        seed: Random seed for splits.
        processes: Number of worker processes; 0 uses one for each core.
        sha256: Expected SHA-256 of the source's archive or table.
        mirrors: Other URLs of the same archive.
        download_cache: Folder that keeps downloaded archives.
        download_timeout_s: Seconds without a byte after which a connection is closed.
        download_deadline_s: Seconds that a whole download may take.
        download_attempts: Attempts for each URL.
        download_backoff_s: First wait between attempts, in seconds; doubles, with jitter.
        max_archive_bytes: Largest number of bytes that an archive may extract to.
        max_archive_members: Largest number of members of an archive.
        source_state: State of the sources, so that a change invalidates the cache.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.
    """
    values = locals()
    import shutil

    from components.ingest.ingest import ingest
    from regraft_core.formats.option_parsing import select_options
    from regraft_core.formats.options import IngestOptions
    from regraft_core.formats.stored_artifacts import keep
    from regraft_core.runtime.step_reports import run_step

    with run_step("ingest"):
        manifest = ingest(sources, dataset.path, select_options(IngestOptions, values))
        shutil.copyfile(f"{dataset.path}/data_card.html", data_card.path)
        dataset.metadata |= {"digest": manifest.digest, "classes": len(manifest.classes)}
        dataset.metadata |= {split: info.count for split, info in manifest.splits.items()}
        name = f"dataset-{manifest.digest[:32]}"
        keep(dataset, work_dir, name, manifest.file_name, "*.tfrecord")
