"""Forward passes of PyTorch in channels-last order, for `bench engines --torch`.

Run by the Python of an environment that has torch and timm, so that Regraft's needs neither. It
imports nothing else:

    python benchmarks/torch_forward.py MODEL IMAGE_PX BATCH ROUNDS

It prints the images per second by precision, as JSON; the shortest of the rounds counts.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def measure(name: str, image_px: int, batch: int, rounds: int) -> dict[str, float]:
    """Return the images per second of a model of timm up to its pooled features."""
    import timm
    import torch

    def features(model: Any, pixels: Any) -> Any:
        return model.forward_features(pixels).mean((2, 3))

    torch.manual_seed(0)
    rates = {}
    for precision in (torch.float32, torch.bfloat16):
        layout: dict[str, Any] = {"memory_format": torch.channels_last, "dtype": precision}
        model = timm.create_model(name).eval().to(**layout)
        pixels = torch.rand(batch, 3, image_px, image_px).to(**layout)
        best = float("inf")
        with torch.inference_mode():
            features(model, pixels)
            for _ in range(rounds):
                start = time.perf_counter()
                features(model, pixels)
                best = min(best, time.perf_counter() - start)
        rates[str(precision).removeprefix("torch.")] = batch / best
    return rates


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
