"""The container image that all steps run in; "python" in its name keeps the local runner quiet."""

IMAGE = "regraft-python:0.1.0"
GPU_IMAGE = f"{IMAGE}-gpu"
"""The same with CUDA, as `make image GPU=1` names it."""
