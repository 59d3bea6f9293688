"""The container image of all steps; "python" in its name avoids a warning of the local runner."""

IMAGE = "regraft-python:0.1.0"
GPU_IMAGE = f"{IMAGE}-gpu"
"""The container image with CUDA, built by `make image GPU=1`."""
