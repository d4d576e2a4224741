"""Frames to run networks on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.drive import SampleDrive


def street(width: int, height: int) -> NDArray[np.uint8]:
    """uint8 [H,W,3] RGB, of a sample drive."""
    return np.asarray(cv2.resize(SampleDrive().frame(40).image, (width, height)), np.uint8)
