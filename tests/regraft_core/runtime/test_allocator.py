"""Memory that a process keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The pages that a process gets from the kernel while it fills and frees the same blocks.
COUNT_PAGES = """
import resource
from regraft_core.runtime.allocator import keep_freed_memory
{call}
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill():
    blocks = [b"x" * (1 << 25) for _ in range(4)]
fill()
before = pages()
for _ in range(8):
    fill()
print(pages() - before)
"""


def count_pages(call: str) -> int:
    code = COUNT_PAGES.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator has these settings")
def test_blocks_that_were_freed_stay_in_the_process() -> None:
    kept, returned = count_pages("keep_freed_memory()"), count_pages("")
    assert returned > 100_000
    assert kept < returned / 20
