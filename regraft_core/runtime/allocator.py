"""The allocator of the C library, in processes that train."""

from __future__ import annotations

import ctypes

# Parameters of glibc's `mallopt`, from its malloc.h: free memory that is kept at the end of a heap,
# what is added to it when it grows, and the smallest block that is not in a heap.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 1 << 26, _MMAP_THRESHOLD: 1 << 30}


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, instead of returning it to the kernel.

    The steps of a training need the same large blocks again and again, and the kernel clears each
    page of a block that was returned before the process gets it again. Nothing changes with other
    allocators than glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in _SETTINGS.items():
        mallopt(parameter, value)
