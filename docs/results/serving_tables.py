"""The tables of predictions: how far to trust them, drift, and how fast they are served."""

from __future__ import annotations

from docs.results.values import Results, goal, markdown, with_prefix


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
