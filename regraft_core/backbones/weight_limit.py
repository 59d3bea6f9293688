"""Builds a network of a file only if its weights can come from the file.

Some bytes can describe a layer of terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from regraft_core.runtime.errors import InputError

# Weights in a file may be compressed.
_MOST_PER_BYTE, _SMALL_NETWORK = 16, 1 << 24


def build_within(make: Callable[[], Any], file_bytes: int, what: str) -> Any:
    """Return the network that `make` builds; no weight is created before all are counted.

    Args:
        make: builds it with Keras.
        file_bytes: size of the file with its weights.
        what: the file, for messages.

    Raises:
        InputError: it has many more weights than the file can hold.
    """
    import keras
    from keras.src.backend.common import global_state

    try:
        with keras.StatelessScope(initialize_variables=False):
            network = make()
        count = sum(math.prod(variable.shape) for variable in network.weights)
        if count > _MOST_PER_BYTE * file_bytes + _SMALL_NETWORK:
            raise InputError(
                f"backbone: the network in {what} has {count} parameters, more than its "
                f"{file_bytes} bytes can hold"
            )
    except BaseException:
        # Otherwise the next scope would create the weights.
        global_state.set_global_attribute("uninitialized_variables", [])
        raise
    with keras.StatelessScope():
        pass  # at its end, Keras creates the weights
    return network
