"""The container image of all steps; "python" in its name avoids a warning of the local runner."""

from regraft_core.runtime.version import VERSION

IMAGE = f"regraft-python:{VERSION}"
GPU_IMAGE = f"{IMAGE}-gpu"
"""The container image with CUDA, built by `make image GPU=1`."""
