"""A GPU that is asked for and not there: an error at once, before TensorFlow is loaded."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import check_gpu

needs_linux = pytest.mark.skipif(platform.system() != "Linux", reason="looks at device files")


@needs_linux
def test_no_device_is_told_without_tensorflow() -> None:
    code = (
        "import sys\n"
        "from regraft_core.runtime.errors import InputError\n"
        "from regraft_core.runtime.gpu_check import check_gpu\n"
        "try:\n    check_gpu(True, ['/dev/no-such-device'])\n"
        "except InputError as error:\n    print(error, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "expected a GPU, this machine has none" in done.stdout
    assert done.stdout.strip().endswith("False")


@needs_linux
def test_a_device_that_tensorflow_does_not_see(tmp_path: Path) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    device = tmp_path / "nvidia0"
    device.touch()
    with pytest.raises(InputError, match="TensorFlow sees none"):
        check_gpu(True, [str(device)])


def test_nothing_is_looked_for_unless_asked() -> None:
    check_gpu(False, [])
