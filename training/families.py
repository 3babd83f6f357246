"""The network class of each model family."""

from __future__ import annotations

from sam_endpoint.training.network import Network
from sam_endpoint.training.sam import SamNetwork
from sam_endpoint.training.sam2 import Sam2Network

FAMILIES: dict[str, type[Network]] = {"sam": SamNetwork, "sam2": Sam2Network}
