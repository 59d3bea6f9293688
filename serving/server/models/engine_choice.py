"""Loads a version with the fastest engine of those that it was verified with."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from regraft_core.formats.engine_packages import is_engine_installed
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.openvino_files import NETWORK_FILE
from regraft_core.formats.serving_engines import may_use_openvino
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.openvino_models import EngineError, load_network
from serving.server.config import BatchingConfig
from serving.server.models.replaced_network import replaced_network
from serving.server.models.servable import Servable, load_servable
from serving.server.protocol.status import Code, ServingError

KEPT = KeptResults(Path("~/.cache/regraft/serving-engines.json"))
BATCH, AT_ONCE = 4, 2
"""Images of a batch in a race, and batches that are computed at the same time."""
ROUND_S, ROUNDS = 1.0, 2
"""Each engine is measured for this time and at least this number of rounds."""
SPREAD = 1.1
"""Second shortest time relative to the shortest, above which other work has disturbed a race."""
LEAST_GAIN = 1.03
"""OpenVINO is used if it is faster by this factor."""


@dataclass(frozen=True)
class EngineLoader:
    """Loads versions for serving.

    Attributes:
        engine: `tf`; `openvino`; or `auto`, the faster of them if the version was verified with
            both, which a race of some seconds finds once for a network on a machine.
        half: `bfloat16`, or "" for float32.
        batching: as for `load_servable`.
        threads: those that compute an operation of TensorFlow; 0 is its choice.
        log: takes a line.
    """

    engine: str
    half: str = ""
    batching: BatchingConfig | None = None
    threads: int = 0
    log: Callable[[str], None] = print

    def load(self, folder: Path) -> Servable:
        """Load a version.

        Raises:
            ServingError: it cannot be loaded, or `openvino` is the engine and it was not verified
                with it.
        """
        if self.engine == "tf":
            return self._load_tensorflow(folder)
        verified = may_use_openvino(folder, self.half)
        if self.engine == "openvino":
            if not verified:
                raise _refused(
                    f"it was not verified with OpenVINO{' in bfloat16' * bool(self.half)}; run it "
                    "with --serving-engine openvino"
                )
            try:
                return self._load_openvino(folder)
            except EngineError as error:
                raise _refused(f"OpenVINO cannot compute it: {error}") from error
        if verified and not is_engine_installed("openvino"):
            self.log("TensorFlow computes it, because the extra openvino is not installed")
            verified = False
        return self._load_faster(folder) if verified else self._load_tensorflow(folder)

    def _load_tensorflow(self, folder: Path) -> Servable:
        return load_servable(folder, self.batching, self.threads, self.half)

    def _load_openvino(self, folder: Path) -> Servable:
        network = load_network(folder / NETWORK_FILE, self.half)
        with replaced_network(folder, network) as replaced:
            servable = load_servable(replaced.folder, self.batching, self.threads)
        servable.held = replaced.body
        return servable

    def _load_faster(self, folder: Path) -> Servable:
        """Return the version with the faster engine; with TensorFlow if OpenVINO fails."""
        manifest = SavedModelManifest.read(folder)
        px = manifest.preprocessing.image_px
        key = [manifest.backbone, px, self.half, f"openvino {metadata.version('openvino')}"]
        kept = KEPT.find(key)
        if kept == "tf":
            return self._load_tensorflow(folder)
        try:
            openvino = self._load_openvino(folder)
        except EngineError as error:
            self.log(f"TensorFlow computes it, because OpenVINO cannot: {error}")
            return self._load_tensorflow(folder)
        if kept == "openvino":
            return openvino
        both = {"tf": self._load_tensorflow(folder), "openvino": openvino}
        rates, disturbed = race(both, np.zeros((BATCH, px, px, 3), np.float32))
        chosen = "openvino" if rates["openvino"] > LEAST_GAIN * rates["tf"] else "tf"
        found = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        although = ", although other work disturbed the race" * disturbed
        self.log(f"images per second by engine: {found}: {chosen} is used{although}")
        if not disturbed:
            KEPT.keep(key, chosen)
        faster = both.pop(chosen)
        for slower in both.values():
            slower.close()
        return faster


def race(servables: dict[str, Servable], pixels: np.ndarray) -> tuple[dict[str, float], bool]:
    """Measure servables, whose rounds take turns; once more if other work disturbs them.

    Args:
        servables: by name, with the signature `images`.
        pixels: a batch, float32 [n, px, px, 3].

    Returns:
        images per second of the shortest round by name, and whether the rounds were disturbed.
    """
    runs = {name: _images_signature(servable, pixels) for name, servable in servables.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for run in runs.values():
            list(pool.map(run, range(AT_ONCE)))  # the first run allocates the memory
        for _ in range(2):
            end, rounds = time.perf_counter() + ROUND_S * len(runs), 0
            while rounds < ROUNDS or time.perf_counter() < end:
                for name, run in runs.items():
                    start = time.perf_counter()
                    list(pool.map(run, range(AT_ONCE)))
                    seconds[name].append(time.perf_counter() - start)
                rounds += 1
            disturbed = any(map(is_disturbed, seconds.values()))
            if not disturbed:
                break
    rates = {name: AT_ONCE * len(pixels) / min(times) for name, times in seconds.items()}
    return rates, disturbed


def is_disturbed(seconds: list[float]) -> bool:
    """Return whether no second round took about as long as the shortest."""
    shortest, second, *_ = sorted(seconds)
    return second > SPREAD * shortest


def _images_signature(servable: Servable, pixels: np.ndarray) -> Callable[[Any], Any]:
    signature = servable.signatures["images"]
    (source,) = signature.inputs.values()
    fetches = [spec.tensor for spec in signature.outputs.values()]
    return lambda _: servable.run({source.tensor: pixels}, fetches)


def _refused(reason: str) -> ServingError:
    return ServingError(Code.FAILED_PRECONDITION, reason)
