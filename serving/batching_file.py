"""The batching file of `regraft serve` and the production files, and the requests it accepts.

TF Serving refuses a request with more rows than `max_batch_size`. A model whose warm-up file has
such a request does not load, and the server exits.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from regraft_core.runtime.errors import InputError

BATCHING_FILE = Path(str(resources.files("serving").joinpath("config", "batching.config")))
MAX_REQUEST_IMAGES = 1024


def batching_flags(file: Path = BATCHING_FILE) -> tuple[str, ...]:
    """Return the flags that enable batching with the parameters of a file."""
    return ("--enable_batching=true", f"--batching_parameters_file={file}")


def batching_text(largest_batch: int, threads: int) -> str:
    """Return a batching file that accepts every exported model.

    Args:
        largest_batch: images in the largest batch that is run; larger requests are split.
        threads: batches that are run at the same time.
    """
    return (
        f"max_batch_size {{ value: {MAX_REQUEST_IMAGES} }}\n"
        "enable_large_batch_splitting { value: true }\n"
        f"max_execution_batch_size {{ value: {largest_batch} }}\n"
        "batch_timeout_micros { value: 0 }\n"
        "max_enqueued_batches { value: 1000 }\n"
        f"num_batch_threads {{ value: {threads} }}\n"
    )


def check_warmup_size(images: int, source: str) -> None:
    """Check that a server with a batching file of `batching_text` accepts a warm-up request.

    Raises:
        InputError: it has too many images.
    """
    if images > MAX_REQUEST_IMAGES:
        raise InputError(
            f"{source}: expected warm-up requests of at most {MAX_REQUEST_IMAGES} images "
            f"(max_batch_size in {BATCHING_FILE.name}), got one of {images}; export with a smaller "
            "--warmup-batch-size"
        )
