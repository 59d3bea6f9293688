"""A required GPU that is missing is an error, before TensorFlow is loaded if possible."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_check import check_gpu

needs_linux = pytest.mark.skipif(platform.system() != "Linux", reason="checks device files")


@needs_linux
def test_a_missing_device_is_reported_without_tensorflow() -> None:
    code = (
        "import sys\n"
        "from regraft_core.runtime.errors import InputError\n"
        "from regraft_core.runtime.gpu_check import check_gpu\n"
        "try:\n    check_gpu(True, ['/dev/no-such-device'])\n"
        "except InputError as error:\n    print(error, 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "expected a GPU, found none (no /dev/no-such-device)" in done.stdout
    assert done.stdout.strip().endswith("False")


@needs_linux
def test_a_device_without_a_gpu_in_tensorflow_is_reported(tmp_path: Path) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    device = tmp_path / "nvidia0"
    device.touch()
    with pytest.raises(InputError, match="TensorFlow found none"):
        check_gpu(True, [str(device)])


def test_without_the_option_nothing_is_checked() -> None:
    check_gpu(False, [])
