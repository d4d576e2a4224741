"""Networks: shapes, and that refinement and restoration start as identity."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from coop_training.config import load_config
from coop_training.guidance import smooth_one_hot
from coop_training.losses import condition_loss, cross_entropy, l1
from coop_training.model import Cooperative
from coop_training.networks.alignment import ChannelAlignment
from coop_training.networks.blocks import EMBEDDING, Adapter, Context, ModulatedBlock, ModulatedUNet, Pointwise
from coop_training.networks.condition import (
    BLUE_SHIFTS,
    OCTAVES,
    RED_SHIFTS,
    Estimate,
    blockiness,
    channel_misalignment,
    gradient_spectrum,
)
from coop_training.networks.deconvolution import STRENGTHS, Deconvolution, blur_widths
from coop_training.networks.filtering import correlate_rows
from coop_training.networks.impulses import ImpulseRemoval, filled, median_of_medians
from coop_training.networks.nafnet import NafNet
from coop_training.networks.refinement import Refinement
from coop_training.networks.restoration import Restoration, rows
from coop_training.networks.segmenter import Segmenter
from coop_training.summary import deployed_costs

from coop_perception.sample_scene.drive import SampleDrive

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

CLASSES, NAMES = 5, ("clear", "gaussian_blur", "fog")
CONDITIONS = len(NAMES)


def gaussian(image: torch.Tensor, sigma: float) -> torch.Tensor:
    blurred = cv2.GaussianBlur(image[0].permute(1, 2, 0).numpy(), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(blurred).permute(2, 0, 1)[None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def image(height: int = 40, width: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (360, 480)])
def test_shapes(height: int, width: int) -> None:
    """360/8 is odd: skips of a size that does not halve evenly must still meet."""
    with torch.inference_mode():
        x = image(height, width)
        logits = Segmenter(CLASSES).eval()(x)
        assert logits.shape == (2, CLASSES, height // 4, width // 4)
        refined, condition, strength, _ = Refinement(CLASSES, NAMES)(x, logits.softmax(1))
        assert refined.shape == logits.shape
        assert (condition.shape, strength.shape) == ((2, CONDITIONS), (2,))
        assert Restoration(CLASSES, NAMES)(x, refined.softmax(1))[0].shape == x.shape


def test_odd_sizes_do_not_shift_the_coarse_scales() -> None:
    """Rows far from the added ones come out the same, though 47 rows do not halve evenly and 40 do."""
    trunk = ModulatedUNet(48, (8, 8, 8), (4, 8, 8), (1, 1, 1), CONDITIONS)
    for name, parameter in trunk.named_parameters():
        if "from_scene" not in name:  # of the whole map, added rows and all
            torch.nn.init.normal_(parameter, std=0.05)
    context = Context(torch.zeros(1, 1, EMBEDDING), torch.rand(1, CONDITIONS).softmax(1))
    folded = torch.randn(1, 48, 47, 24)
    with torch.inference_mode():
        torch.testing.assert_close(trunk(folded, context)[:, :, :8], trunk(folded[:, :, :40], context)[:, :, :8])


def test_refinement_starts_as_identity() -> None:
    probabilities = torch.rand(2, CLASSES, 10, 16).softmax(1)
    refined = Refinement(CLASSES, NAMES)(image(), probabilities)[0].softmax(1)
    torch.testing.assert_close(refined, probabilities)


def test_refinement_starts_from_the_segmenters_features_and_keeps_its_statistics() -> None:
    segmenter, refinement = Segmenter(CLASSES), Refinement(CLASSES, NAMES)
    segmenter(image())  # whose batch normalisations have seen something
    refinement.start_from(segmenter)
    theirs, ours = segmenter.state_dict(), refinement.state_dict()
    shared = [name for name in theirs if name in ours]
    assert len(shared) > 100
    refinement.train()
    refinement(image(), torch.rand(2, CLASSES, 10, 16).softmax(1))
    assert all(torch.equal(theirs[name], refinement.state_dict()[name]) for name in shared)


def test_images_of_a_batch_do_not_mix_in_training() -> None:
    x, probabilities = image(), torch.rand(2, CLASSES, 10, 16).softmax(1)
    for network in (Refinement(CLASSES, NAMES), Restoration(CLASSES, NAMES)):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        network.train()
        both, alone = network(x, probabilities)[0], network(x[:1], probabilities[:1])[0]
        torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


def test_refinement_takes_any_segmentation_size() -> None:
    refined = Refinement(CLASSES, NAMES)(image(), torch.rand(2, CLASSES, 5, 8).softmax(1))[0]
    assert refined.shape == (2, CLASSES, 10, 16)


def grey(height: int = 40, width: int = 64) -> torch.Tensor:
    """An image whose channels are aligned, being equal."""
    return torch.rand(2, 1, height, width).expand(2, 3, height, width)


def shifted(x: torch.Tensor, red: int, blue: int) -> torch.Tensor:
    """Red and blue moved right."""
    return torch.stack([x[:, 0].roll(red, 2), x[:, 1], x[:, 2].roll(blue, 2)], 1)


def test_restoration_starts_as_identity_on_aligned_channels() -> None:
    x = grey()
    restored = Restoration(CLASSES, NAMES)(x, torch.rand(2, CLASSES, 10, 16).softmax(1))[0]
    torch.testing.assert_close(restored, x, atol=1e-3, rtol=0)


def trained(network: torch.nn.Module) -> torch.nn.Module:
    """No weight of it zero, as if it had learnt."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.eval()


@torch.no_grad()
def test_restoration_goes_by_the_estimate_it_is_given() -> None:
    restoration = trained(Restoration(CLASSES, NAMES))
    x, scene = image(), torch.rand(2, CLASSES, 10, 16).softmax(1)
    alone, logits, strength = restoration(x, scene)
    own = Estimate(logits.softmax(1), strength)
    torch.testing.assert_close(restoration(x, scene, own)[0], alone)
    for other in (Estimate(own.posterior.roll(1, 1), own.strength), Estimate(own.posterior, own.strength + 0.5)):
        assert (restoration(x, scene, other)[0] - alone).abs().max() > 1e-3


@torch.no_grad()
def test_restoration_is_conditioned_on_the_refinements_estimate_unless_it_is_unguided() -> None:
    config = load_config(CONFIGS / "camvid_smoke.yaml")
    x, scene = image(), torch.rand(2, 11, 10, 16).softmax(1)
    for guidance, conditioned in (("mixed", True), ("none", False)):
        model = Cooperative(config.model_copy(update={"guidance": guidance})).eval()
        trained(model.refinement)
        trained(model.restoration)
        refined, estimate = model.refine(x, scene)
        of_refined = model.refinement.estimate(x, refined)
        torch.testing.assert_close((estimate.posterior, estimate.strength), (of_refined.posterior, of_refined.strength))
        if conditioned:
            change = model.restoration(x, refined, estimate)[0] - x
            expected = x + estimate.familiarity[:, None, None, None] * change  # type: ignore[index]
        else:
            expected = model.restoration(x, refined)[0]
        torch.testing.assert_close(model.restore(x, refined)[0], expected)


@torch.no_grad()
def test_what_is_not_familiar_is_left_as_it_is_to_the_last_bit() -> None:
    model = Cooperative(load_config(CONFIGS / "camvid_smoke.yaml")).eval()
    trained(model.refinement)
    trained(model.restoration)
    x, scene = image(), torch.rand(2, 11, 10, 16).softmax(1)
    last = model.refinement.estimator.familiar[-1]
    for bias, share in ((-9.0, 0.0), (9.0, 1.0)):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, bias)
        estimate = model.refinement.estimate(x, scene)
        assert estimate.familiarity.tolist() == [share, share]  # type: ignore[union-attr]
        published = estimate.weakened()
        torch.testing.assert_close(published.posterior.sum(1), torch.ones(2))
        restored = model.restore(x, scene)[0]
        if share:
            torch.testing.assert_close(published.posterior, estimate.posterior)
            assert (restored - x).abs().max() > 0.01
        else:
            assert published.posterior[:, 0].tolist() == [1, 1]
            assert published.strength.tolist() == [0, 0]
            assert torch.equal(restored, x)


@torch.no_grad()
def test_the_share_of_the_correction_is_the_told_conditions_own() -> None:
    restoration, x, scene = trained(Restoration(CLASSES, NAMES)), image(), torch.rand(2, CLASSES, 10, 16).softmax(1)

    def restored(share: float) -> torch.Tensor:
        restoration.share.copy_(torch.tensor([1.0, share, 1.0]))
        return restoration(x, scene, Estimate(torch.eye(CONDITIONS)[[1, 2]], torch.full((2,), 0.5)))[0]

    none, half, whole = (restored(share) for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(2 * (half - none)[0], (whole - none)[0])
    assert (whole - none)[0].abs().max() > 1e-3
    torch.testing.assert_close(none[1], whole[1])


@torch.no_grad()
def test_what_is_left_to_filters_is_not_corrected() -> None:
    names = ["clear", "impulse_noise", "chromatic_aberration", "fog"]
    restoration, scene = trained(Restoration(CLASSES, names)), torch.rand(4, CLASSES, 10, 16).softmax(1)
    x = image()[[0, 1, 0, 1]]
    told = Estimate(torch.eye(4), torch.full((4,), 0.5))
    corrections = (restoration(x, scene, told)[0] - restoration.front(x, told=told)[0]).abs().amax((1, 2, 3))
    assert corrections[1:3].max() == 0
    assert corrections[[0, 3]].min() > 1e-3


def test_rows_from_the_upper_edge_to_the_lower() -> None:
    found = rows(torch.zeros(2, 7, 4, 3))
    assert found.shape == (2, 1, 4, 3)
    assert found[1, 0, :, 2].tolist() == [-0.75, -0.25, 0.25, 0.75]


@torch.no_grad()
def test_restoration_hears_where_a_row_lies() -> None:
    """What is the same everywhere is restored otherwise above than below, though not to the left than to the right."""
    restoration = trained(Restoration(CLASSES, NAMES))
    height, width = 768, 2304  # edges are heard too, by windows at them and in their neighbourhood, but not so far
    restored = restoration(
        torch.full((1, 3, height, width), 0.5), torch.full((1, CLASSES, height // 4, width // 4), 0.2)
    )[0]
    row, below, column, beside = slice(352, 356), slice(416, 420), slice(1120, 1124), slice(1184, 1188)
    torch.testing.assert_close(restored[..., row, column], restored[..., row, beside], atol=1e-5, rtol=0)
    assert (restored[..., row, column] - restored[..., below, column]).abs().max() > 1e-4


def test_misalignment_is_least_at_the_shift() -> None:
    costs = channel_misalignment(shifted(grey(), 6, 3))
    assert costs[:, :RED_SHIFTS].argmin(1).tolist() == [6, 6]
    assert costs[:, RED_SHIFTS:].argmin(1).tolist() == [3, 3]


def test_alignment_moves_channels_back_where_its_gate_is_open() -> None:
    x = grey()
    degraded = shifted(x, 6, 3)
    alignment, embedding = ChannelAlignment(NAMES), torch.zeros(2, EMBEDDING)
    unknown = Estimate(torch.eye(CONDITIONS)[[0, 0]], torch.zeros(2))
    torch.nn.init.constant_(alignment.gate.bias, 12.0)
    restored = alignment(degraded, embedding, channel_misalignment(degraded), unknown)
    torch.testing.assert_close(restored[..., :-RED_SHIFTS], x[..., :-RED_SHIFTS], atol=0.01, rtol=0)
    assert (degraded - x).abs().mean() > 0.1
    torch.nn.init.constant_(alignment.gate.bias, -12.0)
    torch.testing.assert_close(alignment(degraded, embedding, channel_misalignment(degraded), unknown), degraded)


def test_what_has_left_the_image_varies_as_green_does() -> None:
    green = torch.rand(1, 1, 5, 40)
    red, blue = green + 0.1, green - 0.2
    whole = torch.cat([red, green, blue], 1)
    moved = [
        torch.nn.functional.pad(x, (k, 0, 0, 0), mode="replicate")[..., :40]
        for x, k in ((red, 7), (green, 0), (blue, 3))
    ]
    names = ("clear", "chromatic_aberration")
    taken, not_taken = (Estimate(torch.eye(2)[[index]], torch.ones(1)) for index in (1, 0))
    alignment, embedding = ChannelAlignment(names), torch.zeros(1, EMBEDDING)
    torch.nn.init.constant_(alignment.gate.bias, 12.0)
    # So much better than at any other shift that the softmax is of one displacement.
    misalignment = torch.full((1, RED_SHIFTS + BLUE_SHIFTS), 0.1)
    misalignment[0, [7, RED_SHIFTS + 3]] = -0.9
    for known_as in (taken, not_taken):
        aligned = alignment(torch.cat(moved, 1), embedding, misalignment, known_as)
        torch.testing.assert_close(aligned, whole, atol=1e-3, rtol=0)
    misalignment[0, 7] = -0.1  # no displacement of red fits
    one = alignment(torch.cat(moved, 1), embedding, misalignment, taken)
    torch.testing.assert_close(one[:, :1], moved[0])
    torch.testing.assert_close(one[:, 1:], whole[:, 1:], atol=1e-3, rtol=0)


def test_rows_are_correlated_with_each_images_own_taps() -> None:
    x, taps = torch.randn(2, 3, 4, 150 + 6), torch.randn(2, 7)
    expected = (x.unfold(3, 7, 1) * taps[:, None, None, None]).sum(4)
    torch.testing.assert_close(correlate_rows(x, taps), expected)


def known(condition: int, strength: float) -> Estimate:
    return Estimate(torch.eye(CONDITIONS)[condition][None], torch.tensor([strength]))


@pytest.mark.parametrize(("place", "left"), [(6, 0.4), (12, 0.55), (14, 0.6), (15, 0.64), (18, 0.66), (24, 0.71)])
def test_deconvolution_undoes_the_blur_of_the_strength_it_is_given(place: int, left: float) -> None:
    """Much of the error is gone, on the fine and on the coarse grid, as much at the borders, where blur mirrors."""
    picture = street()
    blurred = in_bytes(gaussian(picture, blur_widths()[place]))
    error = (Deconvolution(NAMES)(blurred, known(1, place / (STRENGTHS - 1))) - picture).square()
    before = (blurred - picture).square()
    assert error.mean() < left * before.mean()
    border = torch.ones(360, 480, dtype=torch.bool)
    border[8:-8, 8:-8] = False
    assert error[..., border].mean() < left * before[..., border].mean()


def test_deconvolution_of_a_width_between_two_filters_lies_between_theirs() -> None:
    deconvolution, blurred = Deconvolution(NAMES), in_bytes(gaussian(street(), 2.6))
    narrow, between, wide = (deconvolution(blurred, known(1, at / (STRENGTHS - 1))) for at in (11, 11.5, 12))
    assert narrow.std() < 0.999 * between.std() < 0.998 * wide.std()  # the wider the blur, the more is undone


def test_a_gentle_deconvolution_goes_less_far() -> None:
    blurred = in_bytes(gaussian(street(), blur_widths()[-1]))
    gentle, full = (Deconvolution(NAMES, gentle)(blurred, known(1, 1.0)) for gentle in (True, False))
    assert blurred.std() < 0.995 * gentle.std() < 0.999 * full.std()


def test_deconvolution_leaves_alone_what_is_not_surely_blurred() -> None:
    x = torch.rand(1, 3, 64, 64)
    unsure = Estimate(torch.tensor([[0.4, 0.45, 0.15]]), torch.tensor([0.5]))
    for estimate in (known(0, 0.5), known(2, 0.5), unsure):
        torch.testing.assert_close(Deconvolution(NAMES)(x, estimate), x)
    torch.testing.assert_close(Deconvolution(("clear", "fog", "rain"))(x, known(1, 0.5)), x)


@pytest.mark.parametrize("kernel", [np.ones((9, 1)), np.ones((1, 7)), np.eye(9), np.ones((5, 5))])
def test_deconvolution_leaves_other_blurs_alone(kernel: np.ndarray) -> None:
    """Of a box or a line, taken for the Gaussian of its variance, the filter would raise remaining detail too far."""
    places = np.indices(kernel.shape) - (np.array(kernel.shape) - 1)[:, None, None] / 2
    width = float(np.sqrt((kernel * (places**2).sum(0)).sum() / kernel.sum() / 2))
    image = street()[0].permute(1, 2, 0).numpy()
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    x = in_bytes(torch.from_numpy(blurred).permute(2, 0, 1)[None])
    strength = float(np.interp(np.log(width), np.log(blur_widths()), np.linspace(0, 1, STRENGTHS)))
    sharp = Deconvolution(NAMES)(x, known(1, strength))
    error = (sharp - street()).square().mean()
    assert error < 1.05 * (x - street()).square().mean()


def test_roughness_is_compared_with_the_image_as_the_camera_gave_it() -> None:
    """What was filtered before has lost the rounding that a sharpened image's roughness is measured against."""
    exact = gaussian(street(), blur_widths()[18])
    deconvolution, estimate = Deconvolution(NAMES), known(1, 18 / (STRENGTHS - 1))
    torch.testing.assert_close(deconvolution(exact, estimate), exact)
    assert (deconvolution(exact, estimate, in_bytes(exact)) - exact).abs().mean() > 0.01


def test_what_is_sharpened_stays_an_image() -> None:
    x = in_bytes(gaussian(torch.from_numpy(np.indices((64, 64)).sum(0) // 16 % 2).float().expand(1, 3, 64, 64), 2.5))
    sharp = Deconvolution(NAMES)(x, known(1, 0.5))
    assert sharp.min() > -0.051
    assert sharp.max() < 1.051


def street() -> torch.Tensor:
    """A frame of a sample drive, [1,3,360,480] in 0..1."""
    return torch.from_numpy(SampleDrive(2).frame(20).image).permute(2, 0, 1)[None] / 255


def in_bytes(image: torch.Tensor) -> torch.Tensor:
    """As a camera gives it."""
    return (255 * image).round() / 255


@pytest.mark.parametrize("constant_hue", [False, True])
def test_impulses_give_way_to_their_neighbours_and_nothing_else_does(constant_hue: bool) -> None:
    picture = gaussian(torch.rand(1, 3, 40, 64), 2.0)
    hit = torch.rand(picture.shape) < 0.03
    noisy = torch.where(hit, (torch.rand(picture.shape) < 0.5).float(), picture)
    removal, embedding = ImpulseRemoval(constant_hue), torch.zeros(1, EMBEDDING)
    torch.testing.assert_close(removal(noisy, embedding), noisy, atol=0.01, rtol=0)
    with torch.no_grad():
        removal.coefficients.bias.copy_(torch.tensor([-20.0, 0.0, 40.0]))
    restored = removal(noisy, embedding)
    torch.testing.assert_close(restored[~hit], picture[~hit], atol=1e-6, rtol=0)
    assert (restored - picture)[hit].square().mean() < 0.02 * (noisy - picture)[hit].square().mean()


def test_an_impulse_has_the_detail_of_the_other_channels() -> None:
    """Of fine texture, which neighbours do not tell, where the other channels show it: neighbours hit or not."""
    texture = 0.2 + 0.6 * torch.rand(1, 1, 40, 64)  # of a mean deviation of 0.15
    picture = (texture + torch.tensor([0.1, 0.0, -0.1])[:, None, None]).expand(1, 3, 40, 64)
    hit = torch.zeros_like(picture)
    hit[:, 0, 3::5, 4::5] = 1
    hit[:, 1, 8, 9] = hit[:, 0, 8, 10] = hit[:, 2, 20, 20] = 1
    noisy = torch.where(hit > 0, torch.ones(()), picture)
    restored = filled(noisy, hit, median_of_medians(noisy))
    torch.testing.assert_close(restored[hit == 0], picture[hit == 0])
    assert (restored - picture).abs()[hit > 0].mean() < 0.03


def test_median_of_medians_is_the_median_of_a_monotonous_neighbourhood() -> None:
    ramp = (torch.arange(6.0)[:, None] + 10 * torch.arange(7.0))[None, None]
    torch.testing.assert_close(median_of_medians(ramp)[..., 1:-1, 1:-1], ramp[..., 1:-1, 1:-1])


def test_adapter_takes_the_matrix_of_the_probable_condition() -> None:
    x, adapter = torch.randn(2, 4, 3, 5), Adapter(4, CONDITIONS)
    certain = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(adapter(x, certain), x)
    with torch.no_grad():
        adapter.matrices[1] = torch.eye(4).roll(1, 0).flatten()
    adapted = adapter(x, certain)
    torch.testing.assert_close(adapted[0], x[0] + x[0].roll(1, 0))
    torch.testing.assert_close(adapted[1], x[1])
    torch.testing.assert_close(adapter(x, certain / 2)[0], x[0] + 0.5 * x[0].roll(1, 0))


def test_pointwise_is_a_1x1_convolution_with_the_matrix_of_the_probable_condition() -> None:
    x, pointwise = torch.randn(3, 4, 3, 5), Pointwise(4, 2, CONDITIONS)
    posterior = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    own = torch.randn(2, 4)
    with torch.no_grad():
        pointwise.matrices[1] = own.flatten()
    for one, share, found in zip(x, (0.0, 1.0, 0.5), pointwise(x, posterior), strict=True):
        kernel = (pointwise.weight + share * own)[:, :, None, None]
        torch.testing.assert_close(found, torch.conv2d(one[None], kernel, pointwise.bias.flatten())[0])


def test_block_hears_the_whole_scene() -> None:
    """What lies far outside a pixel's neighbourhood has a say in it, as fog's colour has, once the block has learnt."""
    block, dark = ModulatedBlock(4, 4, CONDITIONS), torch.rand(1, 4, 8, 64)
    bright = torch.cat([dark[..., :32], dark[..., 32:] + 1], 3)
    context = Context(torch.zeros(1, 1, EMBEDDING), torch.eye(CONDITIONS)[:1])
    torch.nn.init.normal_(block.second.get_parameter("weight"))

    def far() -> torch.Tensor:
        return (block(bright, context) - block(dark, context))[..., :16].detach().abs().max()

    assert far() == 0
    torch.nn.init.normal_(block.from_scene.get_parameter("weight"))
    assert far() > 0.1
    # What comes out grows as what goes in does and no faster: of a square of it, a few blocks would make anything.
    with torch.inference_mode():
        growth = [float(block(size * bright, context).abs().max()) / size for size in (1e3, 1e6)]
    assert growth[1] == pytest.approx(growth[0], rel=0.01)


def test_restoration_leaves_the_condition_estimate_alone() -> None:
    """The estimate is published: only its own loss may teach the heads that give it."""
    restoration = Restoration(CLASSES, NAMES)
    for parameter in restoration.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    restored = restoration(image(), torch.rand(2, CLASSES, 10, 16).softmax(1))[0]
    l1(restored, image()).backward()
    assert restoration.front.encoder.condition.weight.grad is None
    assert restoration.trunk.encoder[0][0].get_submodule("adapter").get_parameter("matrices").grad is not None


def test_blockiness_peaks_at_the_grid_of_jpeg() -> None:
    blocks = torch.rand(1, 3, 6, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    phases = blockiness(blocks + 0.01 * torch.rand(1, 3, 48, 64))
    assert phases[0, :8].argmax() == 7
    assert phases[0, 8:].argmax() == 7


def test_spectrum_tells_how_wide_a_blur_is() -> None:
    """The wider a blur, the coarser the scales that it takes from."""
    x = grey(160, 256)[:1]
    of_sharp = gradient_spectrum(x).unflatten(1, (OCTAVES, 3))
    narrow, wide = (of_sharp - gradient_spectrum(gaussian(x, s)).unflatten(1, (OCTAVES, 3)) for s in (1.0, 4.0))
    assert narrow[0, 0].min() > 0.5
    assert narrow[0, 4].abs().max() < 0.2
    assert wide[0, 3].min() > 2 * narrow[0, 3].max()


def test_nafnet_takes_any_size_and_knows_no_condition() -> None:
    restored, condition, strength = NafNet(CLASSES, NAMES)(image(36, 52), torch.rand(2, CLASSES, 9, 13).softmax(1))
    assert restored.shape == (2, 3, 36, 52)
    assert not condition.any()
    assert not strength.any()


def test_no_normalisation_mixes_images() -> None:
    """An image's result does not depend on what else is in the batch, in training mode either."""
    network = Restoration(CLASSES, NAMES).train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x, guidance = image(), torch.rand(2, CLASSES, 10, 16).softmax(1)
    alone = network(x[:1], guidance[:1])[0]
    torch.testing.assert_close(network(x, guidance)[0][:1], alone, atol=1e-4, rtol=0)


def test_restoration_reaches_the_refinement_through_the_guidance() -> None:
    """Stage 3 needs S_r differentiable."""
    refinement, restoration = Refinement(CLASSES, NAMES), Restoration(CLASSES, NAMES)
    for parameter in (*refinement.parameters(), *restoration.parameters()):
        torch.nn.init.normal_(parameter, std=0.05)
    logits = refinement(image(), torch.rand(2, CLASSES, 10, 16).softmax(1))[0]
    l1(restoration(image(), logits.softmax(1))[0], image()).backward()
    gradient = refinement.correction.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_cross_entropy_ignores_unlabelled_pixels() -> None:
    logits = torch.randn(1, CLASSES, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[0, 0] = 255
    expected = -logits.log_softmax(1)[0, 0, 1:].mean()
    torch.testing.assert_close(cross_entropy(logits, mask), expected)


def test_condition_loss_vanishes_at_the_truth() -> None:
    logits = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    strength = torch.tensor([0.0, 0.7])
    assert condition_loss(logits, strength, torch.tensor([0, 1]), strength) < 1e-6


def test_smooth_one_hot_averages_boxes_and_spreads_unlabelled_pixels() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.long)
    mask[0, :4, :2] = 1
    mask[0, 4:, 4:] = 255
    probabilities = smooth_one_hot(mask, 2, 2)
    assert probabilities[0, :, 0, 0].tolist() == [0.5, 0.5]
    assert probabilities[0, :, 0, 1].tolist() == [1.0, 0.0]
    assert probabilities[0, :, 1, 1].tolist() == [0.5, 0.5]


def test_the_document_tells_what_the_networks_cost() -> None:
    model = Cooperative(load_config(CONFIGS / "street.yaml"))
    document = (CONFIGS.parents[1] / "docs" / "networks.md").read_text()
    costs = deployed_costs(model)
    for name, cost in costs.items():
        row = rf"\| {name}\b.* \| {cost.parameters / 1e6:.1f} \| {cost.macs / 1e9:.1f} \|"
        assert re.search(row, document), row
    assert costs["refinement"].macs + costs["restoration"].macs <= 20e9
