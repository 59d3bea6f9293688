"""The packages that formats of an exported model need, which are checked before a run."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from regraft_core.runtime.errors import InputError

FORMAT_PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "openvino_int8": ("openvino", "nncf"),
}


def check_format_packages(formats: Iterable[str]) -> None:
    """Check that the packages of export formats are installed here.

    Raises:
        InputError: one is missing.
    """
    for name in formats:
        if missing := [one for one in FORMAT_PACKAGES.get(name, ()) if find_spec(one) is None]:
            raise InputError(
                f"formats: {name} needs {' and '.join(missing)}, not installed here; "
                f"pip install 'regraft[{name}]', or leave {name} out"
            )
