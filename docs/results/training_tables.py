"""The tables of training: its speed, its accuracy and the choices of heads."""

from __future__ import annotations

from docs.results.quality_rows import ACCURACY_ROWS
from docs.results.values import Results, goal, markdown, with_prefix


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
    rows = []
    for prefix, name in ACCURACY_ROWS.items():
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
