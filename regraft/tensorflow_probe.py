"""What TensorFlow reports of itself and its GPUs; `python -m regraft.tensorflow_probe` prints it.

It runs in a process of its own, because TensorFlow ends its process if the CPU lacks an
instruction, and because the libraries of CUDA can.
"""

from __future__ import annotations

import ctypes
import json
import time
from pathlib import Path
from typing import Any


def probe() -> dict[str, Any]:
    """Return the versions, the build and the GPUs of TensorFlow, and whether a GPU computes."""
    import keras
    import tensorflow as tf

    build = tf.sysconfig.get_build_info()
    gpus = tf.config.list_physical_devices("GPU")
    found: dict[str, Any] = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "cuda": bool(build.get("is_cuda_build")),
        "built_for": {
            "CUDA": str(build.get("cuda_version", "")), "cuDNN": str(build.get("cudnn_version", ""))
        },
        "kernels": list(build.get("cuda_compute_capabilities", [])),
        "gpus": [],
    }  # fmt: skip
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        found["gpus"].append(
            {"name": details.get("device_name", gpu.name),
             "capability": list(details.get("compute_capability", (0, 0)))}
        )  # fmt: skip
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        found |= _convolve(tf)
        found["loaded"] = loaded_libraries()
    return found


def _convolve(tf: Any) -> dict[str, Any]:
    """Compute a convolution, which needs the driver, cuDNN and kernels for the card."""
    start = time.perf_counter()
    try:
        with tf.device("/GPU:0"):
            images, kernel = tf.ones([1, 8, 8, 4]), tf.ones([3, 3, 4, 4])
            total = float(tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "VALID")))
    except Exception as error:  # the kinds of errors of a broken card have no common base
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"convolution_error": lines[0][:300]}
    if total != 6 * 6 * 4 * 36:
        return {"convolution_error": f"expected the sum 5184, got {total:g}"}
    return {"convolution_s": round(time.perf_counter() - start, 2)}


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> dict[str, str]:
    """Return the versions of CUDA's runtime and cuDNN that this process has loaded."""
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if ".so" in line}
    found = {}
    for path in sorted(paths):
        name = Path(path).name
        try:
            if name.startswith("libcudart.so"):
                number = ctypes.c_int()
                ctypes.CDLL(path).cudaRuntimeGetVersion(ctypes.byref(number))
                found["CUDA"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
            elif name.startswith("libcudnn.so"):
                version = ctypes.CDLL(path).cudnnGetVersion()
                found["cuDNN"] = f"{version // 10000}.{version % 10000 // 100}.{version % 100}"
        except (OSError, AttributeError):
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(probe()))
