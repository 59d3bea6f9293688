"""Where an exported model has its network for OpenVINO, and which function of the graph it is."""

from __future__ import annotations

NETWORK_FUNCTION = "regraft_network"
"""Part of the function's name in the graph; it is from pixels to the outputs of the network."""
NETWORK_FILE = "assets.extra/openvino/network.xml"
"""The same function for OpenVINO (see `write_network`); its weights are beside it, in `.bin`."""
