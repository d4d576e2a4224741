"""A frame's way through all networks of a bundle, with nothing around it: for what compares how they are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import CONTRACTS, Bundle, network_size
from coop_perception.engines import Engine
from coop_perception.views import scene_view, sensor_view

SIZE = (480, 640)
"""Height and width of the frames that are taken for it."""

Image: TypeAlias = NDArray[np.uint8]
Feed: TypeAlias = dict[str, NDArray[np.generic]]
"""Tensors of one run by name."""
Run: TypeAlias = Callable[[str, Feed, Sequence[str]], Mapping[str, NDArray[np.generic]]]
"""Gives the named outputs of the named network for its inputs."""


def outputs_of(bundle: Bundle, frame: Image, run: Run, network_height: int = 0) -> Feed:
    """Every tensor of a frame's way through the networks, inputs included, as batches of one. Restoration is
    conditioned on refinement's own estimate.

    Args:
        frame: uint8 [h,w,3] RGB.
        run: runs one of the networks.
        network_height: of their image, in pixels; 0: the bundle's.
    """
    height, width = frame.shape[:2]
    image = scene_view(frame, network_size(bundle.input, height, width, network_height))
    values: Feed = {"frame": frame[None], "image": image[None], "sensor": sensor_view(frame, bundle.input.sensor)[None]}
    for name, contract in CONTRACTS.items():
        values |= run(name, {key: values[key] for key in contract.inputs}, contract.outputs)
    return values


def with_engines(engines: Mapping[str, Engine]) -> Run:
    """By loaded networks."""
    return lambda name, given, wanted: engines[name].run(given, wanted)
