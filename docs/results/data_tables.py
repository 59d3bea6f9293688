"""The tables of data and of runs: ingest, reviews, local runs and many images."""

from __future__ import annotations

from typing import Any

from docs.results.values import Results, Row, goal, markdown, with_prefix


def ingest_speed(results: Results) -> str:
    """Return the speed of ingest and of a bare Pillow loop."""
    return _ingest(results, "pillow", "Pillow loop", "ingest", "ingest")


def ingest_forms(results: Results) -> str:
    """Return the speed of ingest from WebDataset shards and from class folders."""
    return _ingest(results, "folder", "class folders", "web_dataset", "WebDataset")


def _ingest(results: Results, other: str, other_label: str, ours: str, our_label: str) -> str:
    """Return the speeds of two sides, by the prefixes of their metrics, and their ratio."""
    ingest = vars(results["ingest"])
    rows = []
    for name, suffix in (
        ("60,000 Fashion-MNIST PNG", "fashion_mnist"),
        ("2,000 JPEG of 1280 x 960", "photos"),
    ):
        for processes in ("1_process", "2_processes"):
            case = f"{suffix}_{processes}"
            ratio = ingest[f"ratio_to_{other}_{case}"]
            rows.append((
                name, processes[0], f"{ingest[f'{other}_{case}']:,.0f} images/s",
                f"{ingest[f'{ours}_{case}']:,.0f} images/s", f"{ratio:.2f}", goal(ratio),
                f"{ingest[f'cpu_ratio_to_{other}_{case}']:.2f}",
            ))  # fmt: skip
    columns = ("images", "processes", other_label, our_label, "ratio", "goal",
               "ratio of CPU time")  # fmt: skip
    return markdown(columns, rows)


def review(results: Results) -> str:
    """Return how well a review finds changed labels, and what suggested labels are worth."""
    r = results["review"]
    rows = [
        ("changed labels among the first 5% of the images, mean", f"{r.found_mean:.1%}", ""),
        ("the same, lowest of the seeds", f"{r.found_min:.1%}", goal(r.found_min, percent=True)),
        ("suspected images, mean", f"{r.suspected_mean:.0f}", ""),
        ("test accuracy: with the original labels / 3% changed / after the review",
         f"{r.clean_accuracy:.4f} / {r.noisy_accuracy:.4f} / {r.fixed_accuracy:.4f}", ""),
        ("seeds with a significantly lower accuracy after the review than with the original labels "
         "(McNemar's test, 5%)",
         f"{r.significantly_worse_seeds:.0f}", goal(r.significantly_worse_seeds)),
    ]  # fmt: skip
    rows += [
        (f"test accuracy with {images} labels: chosen by `suggest` / at random",
         f"{getattr(r, f'suggest_accuracy_{images}'):.3f} / "
         f"{getattr(r, f'random_accuracy_{images}'):.3f}", "")
        for images in (20, 40, 60, 80, 100, 120)
    ]  # fmt: skip
    rows.append(
        ("mean gain of `suggest` after the first 20 labels (standard deviation of the seeds)",
         f"{100 * r.suggest_mean_gain:+.1f} ({100 * r.suggest_gain_deviation:.1f}) points",
         "**missed**" if not r.suggest_mean_gain.holds else "above 0")
    )  # fmt: skip
    return markdown(("metric", "measured", "goal"), rows)


def local_orchestration(results: Results) -> str:
    """Return the overhead of local runs and the prediction of the cost model."""
    o, scale = results["orchestration"], results["scale_out"]
    rows = [
        ("local run, 64 px: wall time / time in the steps",
         f"{o.wall_time:.0f} / {o.steps_time:.0f} s", "", "`regraft bench orchestration`"),
        ("overhead per step: kfp, starting Python, importing kfp and TensorFlow",
         f"{o.overhead_per_step:.1f} s", f"{goal(o.overhead_per_step)} s", ""),
        (f"the same run again ({o.unchanged_rerun_steps:.0f} steps run, the others are cached)",
         f"{o.unchanged_rerun:.1f} s", f"{goal(o.unchanged_rerun)} s", ""),
        ("extraction, 128 px, 3 views: one worker on one core / on both",
         f"{o.extraction_1_worker_1_core:.1f} / {o.extraction_1_worker:.1f} s", "", ""),
        ("the same, two workers on two cores", f"{o.extraction_2_workers:.1f} s (efficiency "
         f"{o.efficiency_2_workers:.2f})", "", ""),
        ("compiled pipeline: one worker / eight workers",
         f"{o.pipeline_size_1_worker:.0f} / {o.pipeline_size_8_workers:.0f} kB", "",
         "`regraft bench orchestration --only pipeline`"),
        ("run on a real backend, 64 px, one worker: wall time / time in the "
         f"{o.cluster_steps:.0f} steps",
         f"{o.cluster_wall_time:.0f} / {o.cluster_steps_time:.0f} s", "",
         "`regraft bench orchestration --only cluster`"),
        ("overhead per step there: scheduling, starts of pods and Python, imports",
         f"{o.cluster_overhead_per_step:.1f} s", "", ""),
        *_downloads(o),
        ("container image for CPUs: build without cache / unpacked size",
         f"{o.container_image_build:.0f} s / {o.container_image_size:.1f} GB", "",
         "`regraft bench orchestration --only container-image`"),
        ("extraction of 19,200 Fashion-MNIST images, 64 px, with start: one worker",
         f"{scale.one_worker:.1f} s", "", "`regraft bench scale_out`"),
    ]  # fmt: skip
    for workers, nodes in ((2, "two nodes"), (4, "four nodes")):
        error = getattr(scale, f"relative_error_of_{workers}")
        slowest, predicted = (
            getattr(scale, f"{kind}_of_{workers}") for kind in ("slowest", "predicted")
        )
        rows.append((
            f"{nodes}: the slowest worker, measured / predicted by the cost model",
            f"{slowest:.1f} / {predicted:.1f} s "
            f"(error {error:.1%})", goal(error, percent=True), "",
        ))  # fmt: skip
    return markdown(("metric", "measured", "goal", "command"), rows)


def _downloads(orchestration: Any) -> list[Row]:
    """Return the highest ratio of the bytes that a step downloads to those that it reads."""
    ratios = [value for name, value in vars(orchestration).items()
              if name.startswith("download_ratio_")]  # fmt: skip
    name = ("with a bucket as `--work-dir`: bytes that a step downloads, relative to the files "
            f"that it reads, highest of {len(ratios)} steps")  # fmt: skip
    command = "`regraft bench orchestration --only downloads`"
    return [(name, f"{max(ratios):.2f}", goal(max(ratios)), command)]


def scale_catalog(results: Results) -> str:
    """Return time and memory of the decisions about a catalog of many images."""
    found = results["scale_catalog"]
    rows = [
        ("duplicates and groups / splits",
         f"{found.catalog_duplicates:.0f} / {found.catalog_splits:.0f} s", ""),
        ("both", f"{found.catalog_decisions:.0f} s", f"{goal(found.catalog_decisions)} s"),
        ("peak memory of the process", f"{found.catalog_peak_memory / 1e3:.1f} GB",
         f"{goal(found.catalog_peak_memory, scale=1000)} GB"),
        ("memory per image", f"{found.catalog_memory_per_image:.0f} bytes",
         f"{goal(found.catalog_memory_per_image)} bytes"),
        ("disk per image, most of it a small gray version of the image",
         f"{found.catalog_disk_per_image:.0f} bytes", ""),
    ]  # fmt: skip
    return markdown((f"{found.catalog_rows:,.0f} images", "measured", "goal"), rows)


def scale_steps(results: Results) -> str:
    """Return time and memory of the steps of a run of many small images."""
    found = results["scale_catalog"]
    metric = with_prefix(found, "steps")
    rows = [
        (step, f"{metric(step):,.0f} s", f"{metric(f'{step}_peak_memory') / 1e3:.1f} GB",
         f"{metric(f'{step}_memory_per_image'):,.0f} bytes")
        for step in ("ingest", "extraction", "head", "candidate", "evaluation")
    ]  # fmt: skip
    header = (f"{found.steps_images:,.0f} images", "time", "peak memory", "memory per image")
    return markdown(header, rows)
