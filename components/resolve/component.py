"""The KFP component `resolve`. Never cache or retry it: it finds changes of the inputs."""

from typing import List, NamedTuple

from kfp import dsl

from regraft_core.runtime.container_image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve(
    sources: List[str],
    mirrors: List[str] = [],  # noqa: B006
    sha256: str = "",
    backbone: str = "vgg16",
    weights: str = "imagenet",
    ood_images: str = "",
    champion: str = "",
    destination: str = "",
    work_dir: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Resolved", [("source_state", str), ("champion", str), ("champion_digest", str)]
):
    """Check that the run can access its inputs and outputs; find the state of the inputs.

    Args:
        sources: Folders, archives, URLs, tables (CSV, Parquet) or samples.
        mirrors: Other URLs of the same archive.
        sha256: Expected SHA-256 of the archive.
        backbone: Name of the pretrained backbone.
        weights: Backbone weights: `imagenet`, `random`, or the path or URI of a file.
        ood_images: Folder of out-of-distribution images; may be empty.
        champion: Folder or URI of the champion; may be empty or not exist yet.
        destination: Folder or URI (`s3://`, `gs://`) of published models.
        work_dir: Folder or bucket URI for finished work and resuming; empty disables it.

    Returns:
        source_state: Changes if the sources, the code or the stored content change.
        champion: Version that is the champion; empty if there is none.
        champion_digest: Digest of the champion.
    """
    from components.resolve.resolve import RunInputs
    from components.resolve.resolve import resolve as run
    from regraft_core.runtime.step_reports import run_step

    with run_step("resolve"):
        found = run(RunInputs(
            sources, mirrors, sha256, backbone, weights, ood_images, champion, destination, work_dir
        ))  # fmt: skip
    return (found.source_state, found.champion, found.champion_digest)
