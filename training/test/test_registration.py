"""Colours laid onto each other: displacements that are known are found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coop_training.bundle_writing import computing
from coop_training.networks.estimate import Estimate
from coop_training.networks.registration import displacements, registered
from coop_training.networks.restoration import Restoration
from coop_training.onnx_graphs import export_graph
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim

from coop_perception.degradations.realistic.optics import radial_aberration, shifted_channels
from coop_perception.engines.calibration import cpu_session
from coop_perception.sample_scene.drive import SampleDrive

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def street() -> Pixels:
    return SampleDrive(2).frame(0).image


def tensor(*images: Pixels) -> Tensor:
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).float() / 255


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


@pytest.mark.parametrize(
    ("red", "blue"),
    [((1.5, 0.0), (-1.0, 0.0)), ((-3.0, 1.5), (2.0, -0.5)), ((14.0, 0.0), (7.0, 0.0)), ((-9.0, 3.0), (4.5, -2.0))],
)
def test_a_shift_is_found_and_undone(street: Pixels, red: tuple[float, float], blue: tuple[float, float]) -> None:
    frame = tensor(shifted_channels(street, red, blue))
    found, rise = displacements(frame)
    expected = torch.tensor([[[*red, 0.0], [*blue, 0.0]]])
    torch.testing.assert_close(found[..., :2], expected[..., :2], atol=0.1, rtol=0)
    torch.testing.assert_close(found[..., 2], expected[..., 2], atol=0.3, rtol=0)
    assert (rise > 0.03).all()
    moved, sure = registered(frame)
    assert sure.max() > 0.9
    assert psnr(moved, tensor(street)) > psnr(frame, tensor(street)) + 5


@pytest.mark.parametrize(("red", "blue"), [(2.5, -2.0), (-4.0, 2.0), (6.0, -6.0)])
def test_a_magnification_is_found_and_undone(street: Pixels, red: float, blue: float) -> None:
    frame = tensor(radial_aberration(street, red, blue))
    found, _ = displacements(frame)
    torch.testing.assert_close(found[0, :, 2], torch.tensor([red, blue]), atol=0.35, rtol=0.05)
    assert found[..., :2].abs().max() < 0.2
    assert psnr(registered(frame)[0], tensor(street)) > psnr(frame, tensor(street)) + 5


@pytest.mark.parametrize(("red", "blue"), [(0.5, -0.25), (1.0, -0.7), (-0.3, 0.2)])
def test_a_displacement_of_less_than_a_pixel_is_undone_or_left(street: Pixels, red: float, blue: float) -> None:
    clear = tensor(street)
    for displaced in (radial_aberration(street, red, blue), shifted_channels(street, (red, 0.0), (blue, 0.0))):
        frame = tensor(displaced)
        moved, sure = registered(frame)
        assert psnr(frame + sure[:, :, None, None] * (moved - frame), clear) > psnr(frame, clear) - 0.05


class Registration(torch.nn.Module):
    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        return registered(frame)


def test_its_graph_gives_the_same_in_flat_parts_too(street: Pixels) -> None:
    axes = {0: Dim("batch", min=1, max=8), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    graph = export_graph(Registration().eval(), [torch.rand(2, 3, 151, 213)], {"frame": axes}, ("moved", "sure"))
    assert computing(graph) < 400
    session = cpu_session(graph.SerializeToString())
    flat = radial_aberration(street, 4.0, -3.0)
    flat[: len(flat) // 2] = (90, 80, 0)
    for image in (radial_aberration(street, -3.0, 2.0), flat, np.full_like(street, 255), street[:70, :60]):
        frame = tensor(image)
        moved, sure = session.run(None, {"frame": frame.numpy()})
        expected = registered(frame)
        np.testing.assert_allclose(sure, expected[1], atol=1e-3)
        np.testing.assert_allclose(moved, expected[0], atol=2e-3)


def test_in_noise_it_is_found_still(street: Pixels) -> None:
    noise = np.random.default_rng(1).normal(0, 15, street.shape)
    frame = np.clip(shifted_channels(street, (3.0, 0.0), (-2.0, 0.0)) + noise, 0, 255).astype(np.uint8)
    found, rise = displacements(tensor(frame))
    torch.testing.assert_close(found[0, :, 0], torch.tensor([3.0, -2.0]), atol=0.2, rtol=0)
    assert (rise > 0.06).all()


def unmoved(street: Pixels) -> dict[str, Pixels]:
    noise = np.random.default_rng(2).integers(0, 256, street.shape, np.uint8)
    return {"street": street, "flat": np.full_like(street, 90), "noise": noise, "small": street[:40, :50].copy()}


@pytest.mark.parametrize("name", ["street", "flat", "noise", "small"])
def test_where_nothing_is_displaced_none_is_sure(street: Pixels, name: str) -> None:
    _, sure = registered(tensor(unmoved(street)[name]))
    assert sure[:, ::2].max() == 0
    assert sure[:, 1].min() == 1


def test_frames_of_a_batch_are_apart(street: Pixels) -> None:
    displaced = radial_aberration(street, 4.0, -3.0)
    together, _ = displacements(tensor(street, displaced))
    torch.testing.assert_close(together[1:], displacements(tensor(displaced))[0], atol=1e-3, rtol=0)


def test_green_stays_to_the_last_bit(street: Pixels) -> None:
    frame = tensor(shifted_channels(street, (4.0, 0.0), (-2.0, 0.0)))
    assert torch.equal(registered(frame)[0][:, 1], frame[:, 1])


@pytest.mark.parametrize(("presence", "familiarity", "laid"), [(0.9, 1.0, 1), (0.3, 1.0, 0), (0.9, 0.0, 0)])
def test_restoration_lays_colours_onto_each_other_where_the_condition_is_present(
    street: Pixels, presence: float, familiarity: float, laid: int
) -> None:
    restoration = Restoration(5, 4).eval()
    restoration.aberration = 2
    frame = tensor(shifted_channels(street, (5.0, 0.0), (-2.0, 0.0)))
    given = torch.full((1, 4), 0.01)
    given[0, 2] = presence
    known = Estimate(given, torch.full((1, 4), 0.5), torch.tensor([familiarity]))
    with torch.no_grad():
        restored = restoration(frame, frame[..., :352, :], torch.full((1, 5, 88, 120), 0.2), known)
    torch.testing.assert_close(restored, registered(frame)[0] if laid else frame)
    assert torch.equal(restored, frame) == (not laid)
