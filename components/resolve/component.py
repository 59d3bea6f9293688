"""The KFP component `resolve`. Never cache or retry it: it finds what has changed."""

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
    """Check that the run can read and write what it names, and find what is there now.

    Args:
        sources: Folders, archives, URLs, tables (CSV, Parquet) or samples.
        mirrors: Other URLs of the same archive.
        sha256: SHA-256 that the source's archive must have.
        backbone: Name of the pretrained backbone.
        weights: `imagenet`, `random`, or a path or URI of weights.
        ood_images: Folder of images of no class; may be empty.
        champion: Folder or URL of the published model to compare with; may not exist yet.
        destination: Folder or bucket that models are published to.
        work_dir: Folder or bucket for finished work; empty keeps it in the artifacts.

    Returns:
        source_state: Changes when the sources, the code or the kept content do.
        champion: The version that is the champion now; empty without one.
        champion_digest: Its digest.
    """
    from components.resolve.resolve import RunInputs
    from components.resolve.resolve import resolve as run
    from regraft_core.runtime.step import run_step

    with run_step("resolve"):
        found = run(RunInputs(
            sources, mirrors, sha256, backbone, weights, ood_images, champion, destination, work_dir
        ))  # fmt: skip
    return (found.source_state, found.champion, found.champion_digest)
