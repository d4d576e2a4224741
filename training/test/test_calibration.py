"""The calibration changes how certain a mask is said to be, and nothing else."""

from __future__ import annotations

import torch
from coop_training.networks.calibration import Calibration

CONFIDENCE = torch.tensor([0.2, 0.4, 0.6, 0.9, 0.99]).expand(2, 1, 5)
PRESENCE = torch.tensor([[0.0, 0.0], [1.0, 0.0]])


def test_starts_as_no_change() -> None:
    with torch.no_grad():
        found = Calibration(11, 2)(CONFIDENCE, PRESENCE)
    torch.testing.assert_close(found, CONFIDENCE, atol=1e-4, rtol=0)
    ends = torch.tensor([[[0.0, 1.0]]])
    with torch.no_grad():
        levels = 255 * Calibration(11, 2)(ends, PRESENCE[:1])
    assert levels.round().flatten().tolist() == [0, 255]


def test_what_is_present_makes_an_image_less_certain_and_no_pixel_more_so_than_another() -> None:
    calibration = Calibration(11, 2)
    with torch.no_grad():
        calibration.temperature.weight[0, 0] = 2.0
        clear, adverse = calibration(CONFIDENCE, PRESENCE)
    torch.testing.assert_close(clear, CONFIDENCE[0], atol=1e-4, rtol=0)
    assert (adverse[0, 1:] < CONFIDENCE[0, 0, 1:]).all()
    assert (adverse[0].diff() > 0).all()
    assert (adverse > 1 / 11).all()
