"""The metrics of each benchmark in words, with what was measured and the goal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docs.results import quality_rows as quality
from docs.results import scale_rows as scale
from docs.results.values import Results, Row, goal, tiny

LABELS = {"vgg16": "VGG16", "resnet50": "ResNet50", "efficientnet_lite0": "`efficientnet_lite0`"}


def benchmark_rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    """Yield the name of each benchmark, and its rows of a metric, its value and its goal."""
    parts = (
        _demo, quality.accuracy, quality.review, _training, _evaluation, _ingest, _export, _serving,
        _orchestration, _commands, scale.scale_out, scale.scale, scale.estimate, _extraction, _gpu,
        _engines, quality.coverage, quality.drift, quality.several_labels, quality.label_intervals,
        scale.scale_catalog, quality.head_penalties, _backbones,
    )  # fmt: skip
    for part in parts:
        name = part.__name__.lstrip("_")
        yield name, part(results[name])


def _demo(demo: Any) -> list[Row]:
    low, high = demo.test_accuracy_low, demo.test_accuracy_high
    lowest, highest = demo.test_accuracy_lowest, demo.test_accuracy_highest
    return [
        (
            "demo: test accuracy on the digits, with the instructions of three kinds of processors",
            f"{lowest:.3f} to {highest:.3f} (95% interval of the first {low:.3f} to {high:.3f})",
            goal(lowest),
        ),
        (
            "demo: largest difference between served and trained probabilities, gRPC / REST",
            f"{tiny(demo.max_abs_diff_grpc)} / {tiny(demo.max_abs_diff_rest)}",
            goal(demo.max_abs_diff_grpc, demo.max_abs_diff_rest),
        ),
        (
            "demo: wall time after installation, by these instructions / relative to version 0.1 / "
            "peak memory",
            f"{demo.wall_time:.0f} to {demo.wall_time_highest:.0f} s / {demo.wall_time_ratio:.2f} /"
            f" {demo.peak_memory / 1000:.1f} GB",
            f"{goal(demo.wall_time_highest)} s / {goal(demo.wall_time_ratio)} / "
            f"{goal(demo.peak_memory, scale=1000)} GB",
        ),
    ]


def _training(training: Any) -> list[Row]:
    def both(suffix: str) -> tuple[Any, Any]:
        return tuple(
            getattr(training, f"{name}_{suffix}") for name in ("efficientnet_lite0", "vgg16")
        )

    lite0, vgg16 = both("head_speedup_over_keras_defaults")
    lite0_limit, vgg16_limit = both("head_ratio_to_forward_pass")
    lite0_extraction, vgg16_extraction = both("extraction_ratio_to_bare_forward")
    top = training.vgg16_top_speedup_over_keras_defaults
    return [
        (
            "head, 20 epochs at 150 px, speedup over Keras' defaults: `efficientnet_lite0` "
            "(5,000 images) / VGG16 (1,500 images)",
            f"{lite0:.1f} / {vgg16:.1f}",
            goal(lite0, vgg16),
        ),
        (
            "head, time of one forward pass of the bare backbone relative to the whole training",
            f"{lite0_limit:.2f} / {vgg16_limit:.2f}",
            goal(lite0_limit, vgg16_limit),
        ),
        (
            "feature extraction, speed relative to the bare forward pass: `efficientnet_lite0` / "
            "VGG16",
            f"{lite0_extraction:.2f} / {vgg16_extraction:.2f}",
            goal(lite0_extraction, vgg16_extraction),
        ),
        (
            "`top` from `block4_pool`, 10 epochs, VGG16 at 150 px, with feature extraction: "
            "speedup over Keras' defaults / without XLA",
            f"{top:.1f} / {training.vgg16_top_speedup_over_keras_without_xla:.1f}",
            goal(top),
        ),
        (
            "50,000 images relative to 1,000: peak memory of extraction / of head training",
            f"{training.scaling_extraction_memory_ratio:.1f} / "
            f"{training.scaling_head_memory_ratio:.1f}",
            "",
        ),
        (
            "extraction, time per additional image above 10,000 images relative to below",
            f"{training.scaling_time_per_image_ratio:.2f}",
            "",
        ),
        *_training_precision(training),
    ]


def _training_precision(training: Any) -> list[Row]:
    difference, error = (
        getattr(training, f"precision_digits_difference{suffix}") for suffix in ("", "_error")
    )
    return [
        (
            f"steps in bfloat16 relative to float32, speed of `top` / `full`: "
            f"{', '.join(LABELS.values())}",
            ", ".join(
                " / ".join(
                    f"{getattr(training, f'precision_{name}_{strategy}_speedup'):.2f}"
                    for strategy in ("top", "full")
                )
                for name in LABELS
            ),
            "",
        ),
        (
            "`top` in bfloat16 on the digits, accuracy minus that in float32, several seeds",
            f"{difference:+.2f} points (standard error {error:.2f})",
            "",
        ),
    ]


def _evaluation(evaluation: Any) -> list[Row]:
    ratio, size = evaluation.ratio_to_bare_forward, evaluation.report_size
    return [
        (
            "evaluation, speed relative to the bare forward pass, 224 px",
            f"{ratio:.2f}",
            goal(ratio),
        ),
        ("report of a run with 10 classes", f"{size:.2f} MB", f"{goal(size)} MB"),
    ]


def _ingest(ingest: Any) -> list[Row]:
    photos = ingest.ratio_to_pillow_photos_1_process, ingest.ratio_to_pillow_photos_2_processes
    fashion = (
        ingest.ratio_to_pillow_fashion_mnist_1_process,
        ingest.ratio_to_pillow_fashion_mnist_2_processes,
    )
    memory = ingest.peak_memory_ratio
    return [
        (
            "ingest, speed relative to a bare Pillow loop, 2,000 JPEG photos: 1 / 2 processes",
            f"{photos[0]:.2f} / {photos[1]:.2f}",
            goal(*photos),
        ),
        (
            "the same with 60,000 Fashion-MNIST PNG",
            f"{fashion[0]:.2f} / {fashion[1]:.2f}",
            goal(*fashion),
        ),
        ("ingest, peak memory for ten times the images", f"{memory:.2f} times", goal(memory)),
    ]


def _export(export: Any) -> list[Row]:
    one, many = export.ratio_to_separate_batch_1, export.ratio_to_separate_batch_32
    return [
        (
            "export of `efficientnet_lite0`",
            f"{export.export:.1f} s",
            f"{goal(export.export)} s",
        ),
        (
            "bytes signature, speed relative to decoding and backbone called separately: "
            "batch 1 / 32",
            f"{one:.2f} / {many:.2f}",
            goal(one, many),
        ),
        (
            "SavedModel folder / relative to the `.keras` file",
            f"{export.saved_model:.1f} MB / {export.size_ratio:.2f} times",
            f"{goal(export.size_ratio)} times",
        ),
    ]


def _serving(serving: Any) -> list[Row]:
    grpc, rest = serving.grpc_ratio_to_in_process, serving.rest_ratio_to_in_process
    latencies = [
        (
            f"one request at a time, {percentile}: in process / gRPC / REST",
            " / ".join(
                f"{getattr(serving, f'{side}_c1_{percentile}'):.1f}"
                for side in ("in_process", "grpc", "rest")
            )
            + " ms",
            goal(*(getattr(serving, f"{side}_c1_{percentile}") for side in ("grpc", "rest")))
            + " ms",
        )
        for percentile in ("p50", "p99")
    ]
    growth, failed = serving.memory_growth_after_first_fifth, serving.swap_failed_requests
    return [
        (
            "embedded server at concurrency 16, throughput relative to the best batch in process: "
            "gRPC / REST",
            f"{grpc:.2f} / {rest:.2f}",
            goal(grpc, rest),
        ),
        _best_engine(serving),
        *latencies,
        (
            f"server, memory growth after the first fifth of {serving.memory_requests:,.0f} "
            "requests",
            f"{growth:.1f} MB",
            f"{goal(growth)} MB",
        ),
        ("a new version under load: failed requests", f"{failed:.0f}", goal(failed)),
        (
            "a new version under load: p99 while it loads / before and after",
            f"{serving.swap_c1_p99:.0f} / {serving.steady_c1_p99:.1f} ms",
            "",
        ),
    ]


def _best_engine(serving: Any) -> Row:
    by_grpc, by_rest = (
        getattr(serving, f"best_engine_{protocol}_ratio_to_before") for protocol in ("grpc", "rest")
    )
    return (
        "embedded server at concurrency 16, throughput with the fastest engine relative to version "
        "0.1: gRPC / REST",
        f"{by_grpc:.2f} / {by_rest:.2f}",
        goal(by_grpc, by_rest),
    )


def _commands(commands: Any) -> list[Row]:
    return [
        (
            "first screens: `regraft --help` / `regraft run --help` / `regraft --man`",
            f"{commands.help_s:.2f} / {commands.run_help_s:.2f} / {commands.manual_page_s:.2f} s",
            goal(*(one for one in (commands.help_s, commands.run_help_s) if one.goal)) + " s",
        )
    ]


def _orchestration(o: Any) -> list[Row]:
    return [
        (
            "local run: overhead per step (kfp, Python, importing TensorFlow) / unchanged rerun",
            f"{o.overhead_per_step:.1f} / {o.unchanged_rerun:.1f} s",
            f"{goal(o.overhead_per_step)} s / {goal(o.unchanged_rerun)} s",
        ),
        (
            "two extraction workers on two cores, efficiency relative to one worker on one core",
            f"{o.efficiency_2_workers:.2f}",
            "",
        ),
        (
            "container image for CPUs (`--only container-image`): build without cache / size",
            f"{o.container_image_build:.0f} s / {o.container_image_size:.1f} GB",
            "",
        ),
    ]


def _extraction(extraction: Any) -> list[Row]:
    def sizes(metric: str) -> list[Any]:
        return [getattr(extraction, f"{size}_mp_{metric}") for size in ("0_2", "2", "12")]

    ratios, speeds = sizes("ratio_to_limit"), sizes("extraction_speed")
    return [
        (
            "extraction from JPEG photographs of 0.2 / 2 / 12 megapixels, `efficientnet_lite0` at "
            "224 px",
            f"{' / '.join(f'{speed:.0f}' for speed in speeds)} images/s",
            "",
        ),
        (
            "the same, relative to what decoding and engine allow together",
            " / ".join(f"{ratio:.2f}" for ratio in ratios),
            goal(*ratios),
        ),
    ]


def _engines(engines: Any) -> list[Row]:
    choices = [getattr(engines, f"{name}_choice_of_best") for name in LABELS]

    peers = {"TensorFlow": "", "OpenVINO": "openvino_", "PyTorch": "torch_"}
    if "vgg16_torch_float32" not in vars(engines):  # measured on request
        del peers["PyTorch"]

    def rates(name: str, engine: str) -> str:
        found = (getattr(engines, f"{name}_{engine}{half}") for half in ("float32", "bfloat16"))
        return " / ".join(f"{rate:.0f}" for rate in found)

    rows: list[Row] = [
        (
            f"forward pass of {label}, float32 / bfloat16: {'; '.join(peers)}; and by Keras' "
            "`predict`, float32",
            f"{'; '.join(rates(name, engine) for engine in peers.values())}; "
            f"{getattr(engines, f'{name}_keras_predict'):.0f} images/s",
            "",
        )
        for name, label in LABELS.items()
    ]
    chosen = "the engine that extraction chooses, speed relative to the fastest one, slowest"
    return [*rows, (chosen, f"{min(choices):.2f}", goal(choices[0]))]


def _gpu(gpu: Any) -> list[Row]:
    batches = [getattr(gpu, f"parity_float32_batch_{size}") for size in (1, 7, 32)]
    largest = max(batches)
    return [
        (
            "on one NVIDIA H200 with 16 cores: largest difference between served and trained "
            "probabilities, batches of 1, 7 and 32",
            tiny(largest),
            goal(largest),
        ),
        (
            "run of the digits there: test accuracy",
            f"{gpu.run_test_accuracy:.3f}",
            goal(gpu.run_test_accuracy),
        ),
    ]


def _backbones(backbones: Any) -> list[Row]:
    found = vars(backbones).items()
    ratios = [value for name, value in found if name.endswith("_extraction_of_predict")]
    name = f"extraction with networks of KerasHub / Keras' `predict`, lowest of {len(ratios)}"
    return [(name, f"{min(ratios):.2f}", goal(*ratios))]
