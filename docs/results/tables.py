"""The tables of measured values in the pages, each as a function from the results to Markdown."""

from __future__ import annotations

from typing import Any

from docs.results.values import Results, Row, goal, markdown, with_prefix


def training_speed(results: Results) -> str:
    """Return the times of Regraft and of both baselines."""
    training = results["training"]
    cases = [
        ("head, 20 epochs, `efficientnet_lite0`, {images} images", "efficientnet_lite0_head", 20),
        ("head, 20 epochs, VGG16, {images} images", "vgg16_head", 20),
        ("`top`, 10 epochs, VGG16 from `block4_pool`, {images} images", "vgg16_top", 10),
    ]
    rows = []
    for name, prefix, epochs in cases:
        value = with_prefix(training, prefix)
        regraft_s = value(f"{epochs}_epochs")
        rows.append((
            name.format(images=f"{value('images'):,.0f}"),
            f"{regraft_s:,.{1 if regraft_s < 100 else 0}f} s",
            *(f"{value(f'{epochs}_epochs_{way}'):,.0f} s ({value(f'speedup_over_{way}'):.1f} times)"
              for way in ("keras_defaults", "keras_without_xla")),
            goal(value("speedup_over_keras_defaults")) + " times",
        ))  # fmt: skip
    columns = ("", "Regraft, whole steps", "Keras' defaults", "Keras without XLA", "goal")
    return markdown(columns, rows)


def training_limits(results: Results) -> str:
    """Return how close extraction and head training come to the bare forward pass."""
    training = results["training"]
    rows = []
    for name, prefix in (("`efficientnet_lite0`", "efficientnet_lite0"), ("VGG16", "vgg16")):
        value = with_prefix(training, prefix)
        head = value("head_ratio_to_forward_pass")
        extraction = value("extraction_ratio_to_bare_forward")
        rows.append((name, f"{head:.2f}", goal(head), f"{extraction:.2f}", goal(extraction)))
    columns = ("", "head, 20 epochs", "goal", "extraction after its start", "goal")
    return markdown(columns, rows)


def training_scaling(results: Results) -> str:
    """Return time and memory of extraction and head training by number of images."""
    training = results["training"]
    rows = []
    for count in (1_000, 10_000, 50_000):
        cells = [f"{count:,}"]
        for step in ("extraction", "head"):
            value = with_prefix(training, f"scaling_{step}")
            cells += [f"{value(count):.1f} s", f"{value(f'memory_{count}'):,.0f} MB"]
        rows.append(tuple(cells))
    columns = ("images", "extraction", "its peak memory", "head training", "its peak memory")
    return markdown(columns, rows)


def familiarity(results: Results) -> str:
    """Return the AUROC of the familiarity of each model and kind of images, and of the energy."""
    found = vars(results["evaluation"])
    models = {
        "digits": "digits",
        "fashion": "Fashion-MNIST, 1,500 images",
        "photos": "14 photographs, 20 tiles of each",
    }
    others = ("digits", "fashion", "tiles", "photos", "noise", "blurred")
    rows = []
    for model, name in models.items():
        value = with_prefix(results["evaluation"], f"familiarity_{model}")
        measured = [one for one in others if f"familiarity_{model}_{one}_auroc" in found]
        rejected = min(value(f"{one}_rejected") for one in measured)
        cells = [f"{value(f'{one}_auroc'):.3f} ({value(f'{one}_energy_auroc'):.3f})"
                 if one in measured else "" for one in others]  # fmt: skip
        rows.append((name, *cells, f"{rejected:.1%}", f"{value('test_kept'):.1%}"))
    columns = ("model", "digits", "Fashion-MNIST", "tiles", "photographs", "noise",
               "blurred digits", "below the threshold, at least",
               "own test images above")  # fmt: skip
    return markdown(columns, rows)


def coverage(results: Results) -> str:
    """Return coverage and size of prediction sets by chosen coverage, for both backbones."""
    rows = []
    for backbone, chosen in _pairs(("0_90", "0_95", "0_99")):
        value = with_prefix(results["coverage"], backbone)
        measured, size = value(f"coverage_{chosen}"), value(f"set_size_{chosen}")
        lowest = value(f"coverage_{chosen}_lowest")
        rows.append((f"`{backbone}`, accuracy {value('accuracy'):.1%}", _percent(chosen),
                     f"{measured:.1%}", f"{lowest:.1%}", f"{size:.2f}"))  # fmt: skip
    columns = ("model", "chosen coverage", "coverage", "lowest of a split", "labels in a set")
    return markdown(columns, rows)


def label_choices(results: Results) -> str:
    """Return mAP and log loss of heads for several labels, by the number of training images."""
    found = results["several_labels"]
    names = ("common_penalty_map", "own_penalties_map", "uncalibrated_log_loss",
             "temperature_log_loss", "platt_log_loss")  # fmt: skip
    rows = [
        (str(size), *(f"{getattr(found, f'{name}_{size}'):.4f}" for name in names))
        for size in (60, 120, 250)
    ]
    columns = ("training images", "mAP, one penalty", "mAP, one for each label",
               "log loss, not calibrated", "one temperature", "Platt scaling")  # fmt: skip
    return markdown(columns, rows)


def label_intervals(results: Results) -> str:
    """Return how often intervals of the mAP contain its true value, by kind of test split."""
    kinds = {
        "good": "5 labels, the rarest in 10% of the images",
        "excellent": "5 labels, the rarest in 10%",
        "weak": "5 labels, the rarest in 5%",
        "rare": "8 labels, the rarest in 1%",
    }
    rows = []
    for kind, name in kinds.items():
        value = with_prefix(results["label_intervals"], kind)
        rows.append((f"{value('images'):.0f} images, {name}", f"{value('map'):.2f}",
                     f"{value('corrected'):.1%}", f"{value('percentile'):.1%}",
                     f"{value('chance'):.1%}"))  # fmt: skip
    columns = ("test split", "true mAP", "in the interval", "in the plain percentile interval",
               "blind models above chance")  # fmt: skip
    return markdown(columns, rows)


def head_penalties(results: Results) -> str:
    """Return log loss and accuracy of heads of many rows, before and after penalties have grown."""
    kinds = {
        "few_features": "100 features, 5 classes, 5% wrong labels",
        "easy": "256 features, 10 classes",
        "noisy": "256 features, 10 classes that overlap, 10% wrong labels",
        "many_features": "800 features, 10 classes",
        "wrong_labels": "800 features, 10 classes, 5% wrong labels",
        "extracted": "1,280 features of `efficientnet_lite0`, Fashion-MNIST",
    }
    rows = []
    for kind, name in kinds.items():
        value = with_prefix(results["head_penalties"], kind)
        rows.append((name, f"{value('loss_before'):.3f}", f"{value('loss_after'):.3f}",
                     f"{value('accuracy_before'):.1%}", f"{value('accuracy_after'):.1%}",
                     f"{100 * value('accuracy_difference'):+.2f} "
                     f"({100 * value('accuracy_difference_error'):.2f}) points",
                     f"{value('factor'):.1f}"))  # fmt: skip
    columns = ("rows", "log loss before", "after", "accuracy before", "after",
               "difference (standard error)", "times the penalty")  # fmt: skip
    return markdown(columns, rows)


def abstention(results: Results) -> str:
    """Return precision and accepted fraction by chosen precision, for both backbones."""
    rows = []
    for backbone, chosen in _pairs(("0_95", "0_99")):
        value = with_prefix(results["coverage"], backbone)
        rows.append((f"`{backbone}`, accuracy {value('accuracy'):.1%}", _percent(chosen),
                     f"{value(f'precision_{chosen}'):.1%}",
                     f"{value(f'accepted_{chosen}'):.1%}"))  # fmt: skip
    return markdown(("model", "chosen precision", "precision", "accepted images"), rows)


def _pairs(chosen: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, one) for name in ("efficientnet_lite0", "tiny") for one in chosen]


def _percent(name: str) -> str:
    return f"{float(name.replace('_', '.')):.0%}"


def drift(results: Results) -> str:
    """Return the false alarms and the alarms of `regraft drift`, by source of the images."""
    names = {"digits": "digits, 9 classes", "fashion": "Fashion-MNIST, 9 classes"}
    rows = []
    for source, name in names.items():
        if f"{source}_accuracy" not in vars(results["drift"]):
            continue
        value = with_prefix(results["drift"], source)
        cells = [f"{value('accuracy'):.3f}", f"{value('reference_images'):,.0f}",
                 f"{value('reference_mb'):.1f} MB", f"{value('false_alarms'):.1%}"]  # fmt: skip
        for kind in ("brightness", "blur", "new_class"):
            cells.append(f"{value(f'{kind}_200'):.0%}, {value(f'{kind}_50'):.0%}")
        more = value("more_of_a_class_class_alarms"), value("more_of_a_class_feature_alarms")
        cells.append(f"{more[0]:.0%}, {more[1]:.0%}")
        rows.append((name, *cells))
    columns = ("images", "accuracy", "reference", "size", "false alarms, 500 checks",
               "brightness times 1.5", "blur", "a fifth of a new class",
               "a class 3 times as frequent: alarms of the classes, of the others")  # fmt: skip
    return markdown(columns, rows)


def backbones(results: Results) -> str:
    """Return the rates of the networks of KerasHub that are measured, and of Keras' `predict`."""
    found = vars(results["backbones"])
    names = {"vit": "ViT-S/16", "deit": "DeiT-S/16", "dinov2": "DINOv2-S/14",
             "dinov3": "DINOv3-S/16", "siglip": "SigLIP, as ViT-S/16", "swin": "Swin-T",
             "mit": "MiT-B0", "hgnetv2": "HGNetV2-B0"}  # fmt: skip
    rows = []
    for prefix, name in names.items():
        if f"{prefix}_predict" not in found:
            continue
        value = with_prefix(results["backbones"], prefix)
        rates = [f"{value(way):.1f} images/s" for way in ("predict", "forward", "extraction")]
        ratio = value("extraction_of_predict")
        rows.append((name, *rates, f"{ratio:.2f}", goal(ratio)))
    columns = ("", "Keras' `predict`", "forward pass", "extraction", "extraction / `predict`",
               "goal")  # fmt: skip
    return markdown(columns, rows)


def accuracy(results: Results) -> str:
    """Return accuracy, time and memory of Regraft's default and of what it is compared with."""
    found = vars(results["accuracy"])
    names = {
        "digits_64": "digits, 64 px",
        **{f"fashion_{n}": f"Fashion-MNIST, {images} images, 96 px"
           for n, images in (("1000", "1,000"), ("10000", "10,000"), ("60k", "60,000"))},
        **{f"{kind}_{n}": f"{kind}, {n} images per class, 96 px"
           for kind in ("photos", "faces") for n in (5, 10, 20)},
    }  # fmt: skip
    rows = []
    for prefix, name in names.items():
        if f"{prefix}_lead" not in found:
            continue
        cells = [name]
        for column in ("regraft", "budget", "last_level", "keras"):
            value = with_prefix(results["accuracy"], f"{prefix}_{column}")
            spread = found.get(f"{prefix}_{column}_accuracy_std")
            cells.append(
                f"{value('accuracy'):.3f}{'' if spread is None else f' ({spread:.3f})'}, "
                f"{value('seconds'):,.0f} s, {value('memory'):,.0f} MB"
            )
        lead = found[f"{prefix}_lead"]
        cells += [f"{lead:+.1f} points", f"{goal(lead)} points" if lead.goal else ""]
        rows.append(tuple(cells))
    columns = ("", "Regraft's default", "Regraft with a budget", "logistic regression, last level",
               "Keras' transfer-learning guide", "Regraft above", "goal")  # fmt: skip
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


def ingest_speed(results: Results) -> str:
    """Return the speed of ingest and of a bare Pillow loop."""
    ingest = vars(results["ingest"])
    rows = []
    for name, suffix in (
        ("60,000 Fashion-MNIST PNG", "fashion_mnist"),
        ("2,000 JPEG of 1280 x 960", "photos"),
    ):
        for processes in ("1_process", "2_processes"):
            case = f"{suffix}_{processes}"
            ratio = ingest[f"ratio_to_pillow_{case}"]
            rows.append((
                name, processes[0], f"{ingest[f'pillow_{case}']:,.0f} images/s",
                f"{ingest[f'ingest_{case}']:,.0f} images/s", f"{ratio:.2f}", goal(ratio),
                f"{ingest[f'cpu_ratio_to_pillow_{case}']:.2f}",
            ))  # fmt: skip
    columns = ("images", "processes", "Pillow loop", "ingest", "ratio", "goal",
               "ratio of CPU time")  # fmt: skip
    return markdown(columns, rows)


def ingest_forms(results: Results) -> str:
    """Return the speed of ingest from WebDataset shards and from class folders."""
    ingest = vars(results["ingest"])
    rows = []
    for name, suffix in (
        ("60,000 Fashion-MNIST PNG", "fashion_mnist"),
        ("2,000 JPEG of 1280 x 960", "photos"),
    ):
        for processes in ("1_process", "2_processes"):
            case = f"{suffix}_{processes}"
            ratio = ingest[f"ratio_to_folder_{case}"]
            rows.append((
                name, processes[0], f"{ingest[f'folder_{case}']:,.0f} images/s",
                f"{ingest[f'web_dataset_{case}']:,.0f} images/s", f"{ratio:.2f}", goal(ratio),
                f"{ingest[f'cpu_ratio_to_folder_{case}']:.2f}",
            ))  # fmt: skip
    columns = ("images", "processes", "class folders", "WebDataset", "ratio", "goal",
               "ratio of CPU time")  # fmt: skip
    return markdown(columns, rows)


def export_speed(results: Results) -> str:
    """Return the time, speed and size of an export."""
    export = results["export"]
    rows = [("export", f"{export.export:.1f} s", f"{goal(export.export)} s")]
    for size in (1, 32):
        ratio = getattr(export, f"ratio_to_separate_batch_{size}")
        for name, part in (("decoding", "decode"), ("backbone and head", "backbone"),
                           ("`serving_default`, from bytes", "bytes")):  # fmt: skip
            speed = getattr(export, f"{part}_batch_{size}")
            rows.append((f"{name}, batch {size}", f"{speed:.1f} images/s", ""))
        rows.append((f"`serving_default` relative to both parts called separately, batch {size}",
                     f"{ratio:.2f}", goal(ratio)))  # fmt: skip
    rows += [
        (f"loading a photograph of {name} megapixels instead of decoding all of it",
         f"{getattr(export, f'photo_{name}_mp'):.1f} instead of "
         f"{getattr(export, f'photo_{name}_mp_whole'):.1f} ms", "")
        for name in (2, 12)
    ]  # fmt: skip
    rows += [
        ("that, of 12 megapixels, times as fast", f"{export.photo_12_mp_speedup:.2f}",
         goal(export.photo_12_mp_speedup)),
        ("SavedModel folder", f"{export.saved_model:.1f} MB", ""),
        ("`.keras` file", f"{export.keras_file:.1f} MB", ""),
        ("SavedModel folder relative to the `.keras` file", f"{export.size_ratio:.2f}",
         goal(export.size_ratio)),
    ]  # fmt: skip
    return markdown(("metric", "measured", "goal"), rows)


def serving_metrics(results: Results) -> str:
    """Return the metrics of the embedded server."""
    s = results["serving"]
    rows = [
        (f"in process, best batch size ({s.in_process_best_batch:.0f})",
         f"{s.in_process_best_rate:.1f} images/s", ""),
        ("gRPC, concurrency 16, relative to that", f"{s.grpc_ratio_to_in_process:.2f}",
         goal(s.grpc_ratio_to_in_process)),
        ("REST, concurrency 16, relative to that", f"{s.rest_ratio_to_in_process:.2f}",
         goal(s.rest_ratio_to_in_process)),
    ]  # fmt: skip
    for percentile in ("p50", "p99"):
        for name, prefix in (("in process, one image", "in_process"),
                             ("gRPC, concurrency 1", "grpc"),
                             ("REST, concurrency 1", "rest")):  # fmt: skip
            value = with_prefix(s, prefix)(f"c1_{percentile}")
            limit = f"{goal(value)} ms" if value.goal else ""
            rows.append((f"{name}, {percentile}", f"{value:.1f} ms", limit))
    for name, prefix in (("gRPC", "grpc"), ("REST", "rest")):
        value = with_prefix(s, prefix)("c1_p99_to_p50")
        rows.append((f"{name}, concurrency 1, p99 relative to p50", f"{value:.2f}", goal(value)))
    for name, prefix in (("one thread for each batch", "one_thread"),
                         ("all cores for each operation", "all_cores")):  # fmt: skip
        value = with_prefix(s, prefix)
        rows.append((f"gRPC, {name}: concurrency 1, p50 / p99; concurrency 16",
                     f"{value('c1_p50'):.1f} / {value('c1_p99'):.1f} ms; "
                     f"{value('c16_rate'):.1f} images/s", ""))  # fmt: skip
    rows += [
        ("publishing a version to its first response, idle server",
         f"{s.publish_to_first_response:.1f} s", ""),
        ("the same at concurrency 1", f"{s.publish_to_first_response_under_load:.1f} s", ""),
        ("failed requests meanwhile", f"{s.swap_failed_requests:.0f}",
         goal(s.swap_failed_requests)),
        ("p99 at concurrency 1 before and after", f"{s.steady_c1_p99:.1f} ms", ""),
        ("p99 while the new version loads", f"{s.swap_c1_p99:.1f} ms", ""),
        ("longest request while the new version loads", f"{s.swap_c1_max:.1f} ms", ""),
        (f"memory growth after the first fifth of {s.memory_requests:,.0f} requests (backbone "
         f"`tiny`, {s.memory_rate:.0f} requests/s)",
         f"{s.memory_growth_after_first_fifth:.1f} MB of {s.memory_end:,.0f} MB",
         f"{goal(s.memory_growth_after_first_fifth)} MB"),
        ("SIGTERM to exit", f"{s.sigterm_to_exit:.1f} s", ""),
    ]  # fmt: skip
    return markdown(("metric", "measured", "goal"), rows)


def serving_batching(results: Results) -> str:
    """Return throughput and latency by protocol, signature and concurrency."""
    rows = []
    for protocol, prefix in (("gRPC", "grpc"), ("REST", "rest")):
        for signature in ("serving_default", "features", "classify"):
            for concurrency in (1, 16):
                cells = [protocol, f"`{signature}`", str(concurrency)]
                for batching in ("batched", "unbatched"):
                    value = with_prefix(
                        results["serving"], f"{prefix}_{signature}_c{concurrency}_{batching}"
                    )
                    cells += [f"{value('rate'):.0f}", f"{value('p50'):.0f} ms",
                              f"{value('p99'):.0f} ms"]  # fmt: skip
                rows.append(tuple(cells))
    columns = ("protocol", "signature", "concurrency", "with batching: images/s", "p50", "p99",
               "without batching: images/s", "p50", "p99")  # fmt: skip
    return markdown(columns, rows)


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
