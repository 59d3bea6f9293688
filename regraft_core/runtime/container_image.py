"""The container image that all steps run in; "python" in its name keeps the local runner quiet."""

from regraft_core.runtime.version import VERSION

IMAGE = f"regraft-python:{VERSION}"
GPU_IMAGE = f"{IMAGE}-gpu"
"""The same with CUDA, as `make image GPU=1` names it."""
