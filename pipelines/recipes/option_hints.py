"""Names that are not options, and the options that they most likely mean.

Here are the names that options had before 0.2, and the usual names of other programs. The command
line, recipes and the Python API suggest from this one table; other names are suggested by spelling.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from regraft_core.runtime.errors import InputError, unknown_name

# Each name with the options that may be meant, as recipe keys; a suggestion must exist in the
# command at hand.
_MEANT: dict[str, tuple[str, ...]] = {
    # Names before 0.2.
    "attempts": ("download_attempts",),
    "averaging": ("ema_momentum",),
    "backoff_s": ("download_backoff_s",),
    "cache": ("download_cache",),
    "claim": ("pvc",),
    "class_floors": ("min_recall_by_class",),
    "cut_kb": ("activation_kb",),
    "deadline_s": ("download_deadline_s",),
    "dtype": ("feature_dtype",),
    "familiar_share": ("in_distribution_fraction",),
    "head": ("pooling",),
    "label": ("version_label",),
    "largest_batch": ("warmup_batch_size",),
    "lowest_rate_share": ("lowest_lr_ratio",),
    "max_bad_share": ("max_invalid_fraction",),
    "picture": ("screenshot",),
    "picture_kb": ("image_kb",),
    "pictures": ("verify_images", "images"),
    "plan": ("strategy",),
    "secret_folder": ("secret_volume",),
    "timeout_s": ("download_timeout_s",),
    "tolerance": ("parity_tolerance",),
    "top": ("top_k",),
    "unfamiliar": ("ood_images",),
    "wait_s": ("wait_timeout_s",),
    "work": ("runs_dir", "work_dir"),
    # Usual names.
    "amp": ("precision",),
    "arch": ("backbone",),
    "architecture": ("backbone",),
    "augmentation": ("augment",),
    "augmentations": ("augment",),
    "base_model": ("backbone",),
    "batch": ("batch_size",),
    "bs": ("batch_size",),
    "bn": ("batch_norm",),
    "checkpoint_dir": ("work_dir",),
    "class_weight": ("class_weights",),
    "cutmix": ("mix",),
    "data": ("source", "sources"),
    "data_dir": ("source", "sources"),
    "dataset": ("source", "sources"),
    "determinism": ("deterministic",),
    "device": ("require_gpu",),
    "dir": ("out", "runs_dir"),
    "ema": ("ema_momentum",),
    "ema_decay": ("ema_momentum",),
    "endpoint": ("host", "server"),
    "host": ("bind", "server"),
    "epoch": ("fine_tune_epochs", "top_epochs"),
    "epochs": ("fine_tune_epochs", "top_epochs"),
    "folder": ("source", "sources", "out"),
    "format": ("formats",),
    "flip": ("flips",),
    "fp16": ("precision",),
    "gpu": ("require_gpu",),
    "gpus": ("require_gpu",),
    "gpu_memory": ("gpu_memory_mb",),
    "image_size": ("image_px",),
    "img_size": ("image_px",),
    "imgsz": ("image_px",),
    "input": ("source", "sources"),
    "input_size": ("image_px",),
    "learningrate": ("learning_rate",),
    "lr": ("learning_rate",),
    "max_time": ("budget",),
    "memory_limit": ("gpu_memory_mb",),
    "mirror": ("flips",),
    "mixed_precision": ("precision",),
    "mixup": ("mix",),
    "model": ("backbone",),
    "name": ("model_name", "run_name"),
    "num_epochs": ("fine_tune_epochs", "top_epochs"),
    "num_workers": ("processes", "workers"),
    "ood": ("ood_images",),
    "output": ("out",),
    "output_dir": ("out",),
    "outdir": ("out",),
    "pool": ("pooling",),
    "pretrained": ("weights",),
    "random_seed": ("seed",),
    "random_state": ("seed",),
    "registry": ("model_registry",),
    "tracking": ("mlflow",),
    "tracking_uri": ("mlflow",),
    "resolution": ("image_px",),
    "rest_port": ("rest_api_port",),
    "size": ("image_px",),
    "smoothing": ("label_smoothing",),
    "src": ("source", "sources"),
    "test_size": ("test_fraction",),
    "test_split": ("test_fraction",),
    "time_budget": ("budget",),
    "time_limit": ("budget",),
    "token": ("token_file", "existing_token"),
    "topk": ("top_k",),
    "url": ("server", "host", "source"),
    "val_fraction": ("validation_fraction",),
    "val_size": ("validation_fraction",),
    "val_split": ("validation_fraction",),
    "validation_split": ("validation_fraction",),
    "weight_decay": ("l2",),
    "weights_file": ("weights",),
}
_COMMANDS = {
    "benchmark": "bench", "check": "doctor", "deploy": "publish",
    "evaluate": "report", "export": "publish", "fine-tune": "run", "finetune": "run",
    "fit": "run", "plan": "estimate", "schema": "recipe-schema", "server": "serve",
    "train": "run",
}  # fmt: skip


def suggest_options(name: str, known: Iterable[str]) -> list[str]:
    """Return the known options that a name most likely means, best first; perhaps none.

    Args:
        name: an unknown name, as a recipe key.
        known: all names that exist, as recipe keys.
    """
    known = list(known)
    meant = [option for option in _MEANT.get(name, ()) if option in known]
    return meant or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def suggest_commands(name: str, known: Iterable[str]) -> list[str]:
    """Return the known commands that a name most likely means, best first; perhaps none."""
    known = list(known)
    meant = [_COMMANDS[name]] if _COMMANDS.get(name) in known else []
    return meant or difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def unknown_option(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown recipe key or option, with suggestions."""
    known = list(known)
    if name in _MEANT and (meant := suggest_options(name, known)):
        return InputError(f"unknown {kind} {name!r}; did you mean {' or '.join(meant)}?")
    return unknown_name(kind, name, known)
