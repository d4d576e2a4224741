"""What is drawn over a street in flat colour is found and filled, and nothing else is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from coop_training.bundle_writing import computing
from coop_training.mixtures import KINDS
from coop_training.networks.covers import covered, seen, uncovering
from coop_training.networks.estimate import Estimate
from coop_training.networks.restoration import Restoration
from coop_training.onnx_graphs import export_graph
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from coop_perception.degradations.realistic import codec, optics, sensor
from coop_perception.engines.calibration import cpu_session
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception.views import sensor_view

Pixels = NDArray[np.uint8]
SOILING = [kind.name for kind in KINDS].index("soiling")


@pytest.fixture(scope="module")
def street() -> Pixels:
    return SampleDrive(2).frame(0).image


def tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def hatched(image: Pixels, colour: tuple[int, int, int], width: int = 6) -> Pixels:
    """Slanted lines and a word, in one colour."""
    drawn = image.copy()
    for x in range(-image.shape[0], image.shape[1], 90):
        cv2.line(drawn, (x, 0), (x + image.shape[0], image.shape[0]), colour, width)
    place = (image.shape[1] // 4, image.shape[0] // 2)
    cv2.putText(drawn, "RECORDED", place, cv2.FONT_HERSHEY_SIMPLEX, image.shape[0] / 200, colour, width)
    return drawn


def share(image: Pixels) -> float:
    height, width = (length // 4 * 4 for length in image.shape[:2])
    return float(covered(tensor(image[:height, :width])).mean())


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 230, 0), (180, 255, 255)])
def test_lines_brighter_than_the_scene_are_found_and_filled(street: Pixels, colour: tuple[int, int, int]) -> None:
    drawn = hatched(street, colour)
    under = (tensor(drawn) != tensor(street)).any(1, keepdim=True)
    found = covered(tensor(drawn)[..., : street.shape[0] // 4 * 4, :]) > 0
    under = under[..., : found.shape[2], :]
    assert (found & under).sum() > 0.6 * under.sum()
    assert (found & ~under).sum() < 0.02 * under.sum()
    restored = tensor(drawn) + uncovering(tensor(drawn))
    assert psnr(restored, tensor(street)) > psnr(tensor(drawn), tensor(street)) + 5
    presence, strength = seen(tensor(sensor_view(drawn, 192)))
    assert presence == pytest.approx(0.97)
    assert 0.1 < strength < 1


def overexposed(image: Pixels) -> Pixels:
    return np.asarray(np.clip(image.astype(np.float32) * 2.5, 0, 255), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        overexposed,
        lambda image: image // 12,
        lambda image: codec.jpeg_at(image, 6, (0, 0)),
        lambda image: sensor.random_impulses(overexposed(image), 0.05, np.random.default_rng(0)),
        lambda image: optics.defocus(hatched(image, (255, 255, 255)), 2.5),  # soft: dirt, or a scene that has stripes
        lambda image: np.full_like(image, 128),
    ],
    ids=["clear", "overexposed", "dark", "blocks", "impulses", "soft", "flat"],
)
def test_what_is_flat_otherwise_is_no_cover(street: Pixels, change: object) -> None:
    assert callable(change)
    image = np.asarray(change(street), np.uint8)
    assert share(image) < 0.005
    assert seen(tensor(sensor_view(image, 192)))[0] == 0
    assert not uncovering(tensor(image)).any()


def test_wide_flat_places_are_no_covers(street: Pixels) -> None:
    """A bar across the frame, a mask over the bonnet: nothing around them says what lies beneath."""
    image = street.copy()
    image[:60], image[-90:, 100:300] = 0, (90, 90, 90)
    assert share(image) == 0


def estimate(soiling: float) -> Estimate:
    presence = torch.zeros(1, len(KINDS))
    presence[0, SOILING] = soiling
    return Estimate(presence, torch.full_like(presence, 0.5), torch.zeros(1))


def test_covers_are_filled_where_soiling_is_present_however_unfamiliar_the_frame(street: Pixels) -> None:
    restoration = Restoration(11, len(KINDS)).eval()
    restoration.soiling = SOILING
    frame = tensor(hatched(street, (255, 255, 255)))
    torch.testing.assert_close(restoration.measured(frame, estimate(0.97)), uncovering(frame))
    assert not restoration.measured(frame, estimate(0.4)).any()
    assert not restoration.measured(tensor(street), estimate(0.97)).any()


def test_what_is_measured_counts_where_it_is_surer() -> None:
    one, other = (torch.tensor(rows) for rows in ([[0.2, 0.6], [0.2, 0.6]], [[0.3, 0.4], [0.3, 0.4]]))
    found = Estimate(one, other, torch.ones(2)).joined(1, torch.tensor([0.5, 0.97]), torch.tensor([0.8, 0.9]))
    torch.testing.assert_close(found.presence, torch.tensor([[0.2, 0.6], [0.2, 0.97]]))
    torch.testing.assert_close(found.strength, torch.tensor([[0.3, 0.4], [0.3, 0.9]]))


class Uncovering(nn.Module):
    def forward(self, frame: Tensor) -> Tensor:
        return uncovering(frame)


def test_graphs_fill_frames_of_any_size(street: Pixels) -> None:
    axes = {"frame": {0: Dim("batch", min=1, max=8), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    graph = export_graph(Uncovering(), [torch.zeros(2, 3, 151, 213)], axes, ["change"])
    assert computing(graph) <= 105
    session = cpu_session(graph.SerializeToString())
    for size in ((360, 480), (251, 333)):
        frame = tensor(hatched(np.asarray(cv2.resize(street, size[::-1]), np.uint8), (255, 0, 0)))
        expected = uncovering(frame)
        assert expected.abs().amax() > 0.1
        (change,) = session.run(None, {"frame": frame.numpy()})
        np.testing.assert_allclose(change, expected, atol=1e-5)
