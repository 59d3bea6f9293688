"""Exhausted memory, of the CPU or a GPU: its forms, its error, and smaller batches."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.nvidia_smi import read_driver
from regraft_core.runtime.step_reports import log_progress

Result = TypeVar("Result")
# CUDA's allocations, and the handles of its libraries, which need memory outside TensorFlow's.
_SIGNS = re.compile(
    r"out[ _]of[ _]memory|failed to allocate|unable to allocate"
    r"|CU\w+_STATUS_(ALLOC_FAILED|NOT_INITIALIZED|INTERNAL_ERROR)"
    r"|(create|creating|initiali[sz]e) (cu)?(blas|dnn|solver)\w* (handle|library)"
    r"|DNN library (initialization failed|is not found)|without (BLAS|DNN) support",
    re.IGNORECASE,
)
# The process cannot use the card at all, so a smaller batch does not help.
_NO_CONTEXT = re.compile(r"cudaSetDevice|cuCtxCreate|cuDevicePrimaryCtxRetain")
_NO_DETERMINISM = re.compile(
    r"determinis\w+ .*not (currently )?(available|supported|implemented)"
    r"|not (currently )?(available|supported|implemented) .*determinis",
    re.IGNORECASE,
)
_REQUEST = re.compile(r"shape ?(\[[\d,]*\]) and type (\w+)|allocate ([\d.]+ ?[KMGT]?i?B)\b")
_GPU = re.compile(r"GPU|CUDA|CU\w+_STATUS|cuda[A-Z]|BLAS|DNN")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the memory of the CPU or of a GPU is exhausted."""
    import tensorflow as tf

    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        return True
    failed = (tf.errors.InternalError, tf.errors.UnknownError, tf.errors.AbortedError,
              tf.errors.FailedPreconditionError, tf.errors.NotFoundError, RuntimeError)  # fmt: skip
    return isinstance(error, failed) and is_out_of_memory_text(str(error))


def is_out_of_memory_text(text: str) -> bool:
    """Return whether a message is about exhausted memory that ends the work."""
    return _SIGNS.search(text) is not None and "not a failure" not in text


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn exhausted memory, of the CPU or a GPU, into an error with a hint. Also a decorator.

    An operation that a GPU cannot compute with `deterministic` gets its line here, too.

    Raises:
        InputError: there is no deterministic form of an operation.
        RegraftError: the memory is exhausted.
    """
    try:
        yield
    except RegraftError:
        raise
    except Exception as error:
        if _NO_DETERMINISM.search(str(error)):
            raise InputError(
                f"deterministic: expected operations that can be, got: {first_line(error)}; run "
                "without --deterministic"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise RegraftError(describe_out_of_memory(str(error))) from error


def describe_out_of_memory(text: str) -> str:
    """Return the line for exhausted memory: what was requested, the card's state, the fix.

    Args:
        text: the message of TensorFlow, or of a process that ended.
    """
    details = []
    if request := _REQUEST.search(text):
        asked = f"shape {request[1]} of {request[2]}" if request[1] else request[3]
        details.append(f"requested {asked}")
    on_gpu = _GPU.search(text) is not None
    driver = read_driver() if on_gpu else None
    cards = driver.visible_cards() if driver else ()
    details += [card.describe() for card in cards]
    found = f" ({'; '.join(details)})" if details else ""
    fix = "use a smaller --batch-size or --image-px"
    if any(card.holders for card in cards) or _NO_CONTEXT.search(text):
        fix += ", or end the processes that hold the card"
    return (
        f"out of {'GPU ' if on_gpu else ''}memory{found}; {fix}; with --work-dir, the next run "
        "resumes from what is finished"
    )


def with_halved_batches(
    what: str, batch_size: int, run: Callable[[int], Result]
) -> tuple[Result, int]:
    """Call `run` with a batch size, and with half of it as often as the memory is exhausted.

    Args:
        what: the step, for its progress.
        batch_size: the first batch size.
        run: is called with the batch size; must be able to start again.

    Returns:
        The result, and the batch size with which `run` ended.
    """
    while True:
        try:
            return run(batch_size), batch_size
        except Exception as error:
            if batch_size == 1 or not is_out_of_memory(error) or _NO_CONTEXT.search(str(error)):
                raise
        # Here the error and the tensors in its stack are no longer referred to.
        gc.collect()
        log_progress(
            f"{what}: out of memory with batches of {batch_size}, goes on with {batch_size // 2}"
        )
        batch_size //= 2


def first_line(error: BaseException) -> str:
    """Return the beginning of an error's message without the stack that TensorFlow adds."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
