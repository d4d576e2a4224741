"""Networks: what they take, give and begin as."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from coop_training.config import TrainConfig, load_config
from coop_training.model import FIELD, Cooperative
from coop_training.networks.bands import BANDS, COARSE_BANDS, feature_bands, veil_bands
from coop_training.networks.encoder import CHANNELS, Encoder, load_pretrained
from coop_training.networks.estimate import Estimate, Estimator
from coop_training.networks.nafnet import NafNet
from coop_training.networks.refinement import SEEN_STATISTICS, Refinement
from coop_training.networks.restoration import Restoration, neighbours_median, rows
from coop_training.networks.segmenter import Segmenter
from coop_training.networks.sensor import (
    BACK,
    SENSOR_STATISTICS,
    blockiness,
    gradient_spectrum,
    misalignment,
    sensor_statistics,
)
from coop_training.networks.shrinkage import Shrinkage
from coop_training.summary import deployed_costs
from torch import Tensor

from coop_perception.degradations.blur import chromatic_aberration
from coop_perception.sample_scene.drive import SampleDrive

CLASSES, CONDITIONS = 5, 4
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture(scope="module")
def street() -> Tensor:
    """A clear frame, [1,3,352,480]."""
    image = torch.from_numpy(SampleDrive(2).frame(0).image).permute(2, 0, 1)[None]
    return image[..., :352, :].float() / 255


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    encoder = Encoder().eval()
    load_pretrained(encoder)
    return encoder


def estimate(presence: float, familiarity: float = 1.0) -> Estimate:
    return Estimate(
        torch.full((1, CONDITIONS), presence), torch.full((1, CONDITIONS), 0.5), torch.tensor([familiarity])
    )


def uniform(height: int = 88, width: int = 120) -> Tensor:
    return torch.full((1, CLASSES, height, width), 1 / CLASSES)


def test_encoder_has_features_at_four_scales(encoder: Encoder, street: Tensor) -> None:
    with torch.no_grad():
        features = encoder(street)
    sizes = [(352 // stride, 480 // stride) for stride in (4, 8, 16, 32)]
    assert [tuple(x.shape[1:]) for x in features] == [
        (channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True)
    ]


def test_pretrained_weights_meet_the_statistics_that_they_were_trained_with(encoder: Encoder, street: Tensor) -> None:
    """Those of other layers, or of images on another scale, would not."""
    off = []

    def compare(norm: torch.nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        off.append(((inputs[0].mean((0, 2, 3)) - norm.running_mean).abs() / norm.running_var.sqrt()).median())

    norms = [module for module in encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    with torch.no_grad():
        encoder(street)
    for hook in hooks:
        hook.remove()
    assert torch.stack(off).max() < 1


def test_a_shift_by_the_coarsest_stride_shifts_features(encoder: Encoder) -> None:
    torch.manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 20, 24), size=(320, 384), mode="bilinear")
    with torch.no_grad():
        still, moved = encoder(image[..., :352])[0], encoder(image[..., 32:])[0]
    torch.testing.assert_close(still[..., 28:68], moved[..., 20:60])


def test_refinement_starts_as_identity(street: Tensor) -> None:
    torch.manual_seed(0)
    refinement = Refinement(CLASSES, CONDITIONS).eval()
    given = torch.rand(1, CLASSES, 88, 120).softmax(1)
    with torch.no_grad():
        logits, presence, strength, statistics = refinement(street, given)
    torch.testing.assert_close(logits.softmax(1), given, atol=1e-5, rtol=1e-4)
    assert presence.shape == strength.shape == (1, CONDITIONS)
    assert statistics.shape == (1, SEEN_STATISTICS)


def test_refinement_takes_over_the_segmenters_features() -> None:
    segmenter, refinement = Segmenter(CLASSES), Refinement(CLASSES, CONDITIONS)
    torch.nn.init.normal_(segmenter.decoder.lateral[0].weight)
    torch.nn.init.normal_(segmenter.encoder.stem[-1].running_mean)
    refinement.start_from(segmenter)
    own, theirs = refinement.state_dict(), segmenter.state_dict()
    assert {name for name in theirs if name not in own} == {"classify.weight", "classify.bias"}
    for name in theirs.keys() & own.keys():
        assert torch.equal(own[name], theirs[name]), name
    assert all(not own[name].any() for name in own if "modulation" in name or "given" in name)


def test_batch_statistics_stay_while_refinement_is_trained(street: Tensor) -> None:
    refinement = Refinement(CLASSES, CONDITIONS).train()
    before = {name: value.clone() for name, value in refinement.named_buffers() if "running" in name}
    assert len(before) > 90
    refinement(street, uniform())
    for name, value in before.items():
        assert torch.equal(refinement.get_buffer(name), value), name


@pytest.mark.parametrize("size", [(88, 120), (352, 480), (44, 60), (17, 23)])
def test_refinement_takes_a_segmentation_of_any_size(street: Tensor, size: tuple[int, int]) -> None:
    refinement = Refinement(CLASSES, CONDITIONS).eval()
    given = torch.rand(1, CLASSES, *size).softmax(1)
    with torch.no_grad():
        refined = refinement(street, given)[0].softmax(1)
    expected = F.interpolate(given, size=(88, 120), mode="bilinear", align_corners=False)
    torch.testing.assert_close(refined, expected, atol=1e-5, rtol=1e-4)


def test_images_of_a_batch_do_not_mix_in_the_refinements_training() -> None:
    refinement = randomised(Refinement(CLASSES, CONDITIONS)).train()
    images = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(2))
    given = uniform(8, 16).expand(2, -1, -1, -1)
    with torch.no_grad():
        together, alone = refinement(images, given), refinement(images[:1], given[:1])
    for both, one in zip(together, alone, strict=True):
        torch.testing.assert_close(both[:1], one, atol=1e-4, rtol=1e-4)


def test_a_restorations_weight_follows_presence_and_familiarity() -> None:
    presence = torch.tensor([[0.39, 0.01], [0.0, 0.65], [0.9, 0.1], [1.0, 0.9], [0.9, 0.0]])
    known = Estimate(presence, torch.ones_like(presence), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0]))
    torch.testing.assert_close(known.weight, torch.tensor([0.0, 0.5, 1.0, 0.5, 0.0]))


@pytest.mark.parametrize("size", [(352, 480), (361, 487), (90, 160), (180, 98)])
def test_restoration_starts_as_identity_at_any_size_of_the_frame(street: Tensor, size: tuple[int, int]) -> None:
    restoration = Restoration(CLASSES, CONDITIONS).eval()
    frame = F.interpolate(street, size=size, mode="bilinear")
    with torch.no_grad():
        restored = restoration(frame, street, uniform(), estimate(0.9))
    torch.testing.assert_close(restored, frame)


@pytest.mark.parametrize("known", [estimate(0.04), estimate(0.9, familiarity=0.0)], ids=["clear", "unfamiliar"])
def test_frames_stay_to_the_last_bit_where_nothing_is_present_or_familiar(street: Tensor, known: Estimate) -> None:
    restoration = randomised(Restoration(CLASSES, CONDITIONS))
    with torch.no_grad():
        changed = restoration(street, street, uniform(), estimate(0.9))
        kept = restoration(street, street, uniform(), known)
    assert (changed - street).abs().max() > 0.01
    assert torch.equal(kept, street)


@pytest.mark.parametrize(("costly", "minor"), [((), 0.39), ((1,), 0.79)], ids=["hardly there", "costly and unsure"])
def test_a_condition_that_is_not_sure_enough_steers_nothing(
    street: Tensor, costly: tuple[int, ...], minor: float
) -> None:
    restoration = randomised(Restoration(CLASSES, CONDITIONS))
    restoration.costly = costly
    frame = street[..., :96, :128]

    def change(*presences: float) -> Tensor:
        presence = F.pad(torch.tensor([presences]), (0, CONDITIONS - len(presences)))
        known = Estimate(presence, torch.full_like(presence, 0.5), torch.ones(1))
        with torch.no_grad():
            return restoration.change(frame, frame, uniform(24, 32), known)

    assert not change(0.0, minor).any()
    alone = change(1.0, 0.0)
    assert alone.abs().max() > 0.01
    torch.testing.assert_close(change(1.0, minor), alone)
    assert (change(1.0, 1.0) - alone).abs().max() > 1e-3


def test_restoration_depends_on_guidance_and_on_the_condition(street: Tensor) -> None:
    restoration = randomised(Restoration(CLASSES, CONDITIONS))
    guidance = torch.rand(1, CLASSES, 88, 120, generator=torch.Generator().manual_seed(1)).softmax(1)
    with torch.no_grad():
        results = [
            restoration(street, street, given, known)
            for given, known in ((uniform(), estimate(0.9)), (guidance, estimate(0.9)), (uniform(), estimate(0.5)))
        ]
    assert all((results[0] - other).abs().max() > 1e-4 for other in results[1:])


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """With weights where there are zeros."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def test_no_normalisation_mixes_images() -> None:
    """A frame's result does not depend on what else is in the batch, in training mode either."""
    restoration = randomised(Restoration(CLASSES, CONDITIONS)).train()
    frames = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(2))
    given, both = uniform(8, 16).expand(2, -1, -1, -1), Estimate(*(torch.ones(2, CONDITIONS),) * 2, torch.ones(2))
    first = Estimate(both.presence[:1], both.strength[:1], both.familiarity[:1])
    alone = restoration(frames[:1], frames[:1], given[:1], first)
    torch.testing.assert_close(restoration(frames, frames, given, both)[:1], alone, atol=1e-5, rtol=0)


def test_restoration_reaches_the_refinement_through_the_guidance() -> None:
    """Stage 3 needs S_r differentiable."""
    refinement, restoration = (randomised(n(CLASSES, CONDITIONS)) for n in (Refinement, Restoration))
    image = torch.rand(1, 3, 32, 64)
    logits = refinement(image, uniform(8, 16))[0]
    restoration(image, image, logits.softmax(1), estimate(0.9)).square().mean().backward()
    gradient = refinement.correction.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_a_lone_value_is_not_its_neighbours_median() -> None:
    image = torch.zeros(1, 1, 6, 7)
    image[0, 0, 2, 3] = 1
    image[0, 0, :, 5:] = 0.5
    found = neighbours_median(image)
    assert found[0, 0, :, :5].max() == 0
    assert found[0, 0, :, 5:].min() == 0.5


def test_rows_from_the_upper_edge_to_the_lower() -> None:
    found = rows(torch.zeros(2, 7, 4, 3))
    assert found.shape == (2, 1, 4, 3)
    assert found[1, 0, :, 2].tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_nafnet_takes_any_size_and_knows_no_condition() -> None:
    torch.manual_seed(0)
    frame, nafnet = torch.rand(1, 3, 36, 52), NafNet(CLASSES, CONDITIONS).eval()
    with torch.no_grad():
        one, other = (nafnet(frame, frame, uniform(9, 13), estimate(presence)) for presence in (0.1, 0.9))
    assert one.shape == frame.shape
    assert torch.equal(one, other)


def configuration(**fields: object) -> TrainConfig:
    stages = {"refinement": {"steps": 1}}
    conditions = ("fog", "rain", "gaussian_blur", "jpeg")
    fields = {"segmenter_from": "x", "losses": {"adversarial": 0}, **fields}
    return TrainConfig.model_validate({"name": "test", "stages": stages, "conditions": conditions, **fields})


@pytest.mark.parametrize(
    ("guidance", "by_guidance", "by_estimate"), [("gt", True, True), ("uniform", False, True), ("none", False, False)]
)
def test_what_restoration_is_conditioned_on(guidance: str, by_guidance: bool, by_estimate: bool) -> None:
    model = Cooperative(configuration(guidance=guidance)).eval()
    randomised(model.restoration)
    frame = torch.rand(1, 3, 32, 64)
    one, other = (torch.rand(1, 11, 8, 16).softmax(1) for _ in range(2))
    with torch.no_grad():
        still, guided, estimated = (
            model.restored(frame, frame, given, estimate(presence))
            for given, presence in ((one, 0.9), (other, 0.9), (one, 0.5))
        )
    assert (not torch.equal(still, guided)) == by_guidance
    assert (not torch.equal(still, estimated)) == by_estimate


@pytest.mark.parametrize("fields", [{}, {"variant": "paper"}, {"variant": "nafnet"}, {"guidance": "none"}])
def test_as_deployed_each_leaves_clear_frames_as_they_are(fields: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = Cooperative(configuration(**fields)).eval()
    randomised(model.restoration)
    image, frame = torch.rand(1, 3, 32, 64), torch.rand(1, 3, 50, 99)
    with torch.no_grad():
        refined, found = model.refine(image, torch.rand(1, 11, 8, 16).softmax(1), torch.rand(1, 3, 64, 64))
        assert found.presence.shape == found.strength.shape == (1, 4)
        torch.testing.assert_close(refined.sum(1), torch.ones_like(refined[:, 0]))
        assert torch.equal(model.restore(frame, image, refined, estimate(0.04)), frame)
        assert (model.restore(frame, image, refined, estimate(0.9)) - frame).abs().max() > 1e-3


def test_as_deployed_three_quarters_of_the_field_are_made_and_all_of_the_residual() -> None:
    model = Cooperative(configuration()).eval()
    randomised(model.restoration)
    image, frame, refined = torch.rand(1, 3, 32, 64), torch.rand(1, 3, 50, 99), torch.rand(1, 11, 8, 16).softmax(1)
    known = estimate(0.9, familiarity=0.5)
    assert isinstance(model.restoration, Restoration)
    with torch.no_grad():
        whole, residual = (model.restoration.change(frame, image, refined, known, share) for share in (1.0, 0.0))
        trained, deployed = (restore(frame, image, refined, known) for restore in (model.restored, model.restore))
        alignment, change = model.proposed(frame, image, refined, known)
    torch.testing.assert_close(trained, frame + whole / 2)
    torch.testing.assert_close(change, residual + FIELD * (whole - residual))
    torch.testing.assert_close(deployed, frame + change / 2)
    assert not alignment.any()


@pytest.mark.parametrize("size", [(64, 96), (16, 24)])
def test_shrinkage_takes_noise_out_and_leaves_the_image(size: tuple[int, int]) -> None:
    """Before any training, by the level that it measures."""
    shrinkage, (height, width) = Shrinkage(4), size
    x, y = torch.arange(width) / 96, torch.arange(height)[:, None] / 64
    clear = torch.stack([0.2 + 0.5 * x + 0 * y, 0.7 - 0.4 * x * y, torch.where(x > y, 0.3, 0.6)])[None]
    noise = 0.1 * torch.randn(clear.shape, generator=torch.Generator().manual_seed(0))
    features = torch.zeros(1, 4, height // 2, width // 2)
    with torch.no_grad():
        left = clear + noise + shrinkage(clear + noise, features) - clear
        moved = shrinkage(clear, features)
    assert left.square().mean() < 0.4 * noise.square().mean()
    assert moved.square().mean() < 1e-4


def test_statistics_are_those_that_are_deployed(street: Tensor) -> None:
    refinement = randomised(Refinement(CLASSES, CONDITIONS))
    sensor = street[..., :64, :64]
    with torch.no_grad():
        scene = refinement(street, uniform())[3]
        torch.testing.assert_close(
            refinement.statistics(street, sensor), refinement.estimator.statistics(scene, sensor)
        )


def test_the_document_tells_what_the_networks_cost() -> None:
    model = Cooperative(load_config(CONFIGS / "street.yaml"))
    document = (CONFIGS.parents[1] / "docs" / "networks.md").read_text()
    costs = deployed_costs(model)
    for name, cost in costs.items():
        row = rf"\| {name}\b.* \| {cost.parameters / 1e6:.1f} \| {cost.macs / 1e9:.1f} \|"
        assert re.search(row, document), row
    assert f"{costs['restoration'].macs_per_megapixel / 1e9:.1f} GMACs for each further megapixel" in document
    assert costs["refinement"].macs + costs["restoration"].macs <= 20e9


def test_sensor_statistics_are_finite_for_flat_and_for_noisy_crops() -> None:
    crops = torch.stack([torch.zeros(3, 256, 256), torch.ones(3, 256, 256), torch.rand(3, 256, 256)])
    statistics = sensor_statistics(crops)
    assert statistics.shape == (3, SENSOR_STATISTICS)
    assert statistics.isfinite().all()
    assert statistics.abs().max() < 20


def test_the_best_displacement_is_the_one_that_channels_have() -> None:
    image = SampleDrive(2).frame(0).image
    shifted = np.roll(image, 3, axis=1)
    shifted[..., 1:] = image[..., 1:]  # red alone lies to the right
    tile = torch.from_numpy(np.ascontiguousarray(shifted[96:224, 160:288])).permute(2, 0, 1)[None].float() / 255
    assert misalignment(tile)[0, : BACK + 17].argmin() == BACK + 3
    published = chromatic_aberration(image, 4)
    tile = torch.from_numpy(np.ascontiguousarray(published[96:224, 160:288])).permute(2, 0, 1)[None].float() / 255
    assert misalignment(tile)[0, : BACK + 17].argmin() != BACK


def test_a_codecs_grid_shows_wherever_it_begins(street: Tensor) -> None:
    tile = street[..., :128, :128].clone()
    blocks = F.interpolate(F.avg_pool2d(tile, 8), scale_factor=8.0)
    at_zero, moved = (blockiness(torch.roll(blocks, shift, 3))[0] for shift in (0, 3))
    assert at_zero[7] > 2
    assert moved[7] > 2 > blockiness(tile)[0, 7]


def test_a_blurs_direction_shows(street: Tensor) -> None:
    tile = street[..., 100:228, 100:228]
    fall = (gradient_spectrum(tile) - gradient_spectrum(F.avg_pool2d(tile, (1, 9), 1)))[0]
    down, across, falling, rising = fall[:4]
    assert across > falling > down
    assert across > rising > down
    assert across > down + 0.5


def test_a_veil_shows_where_it_is(street: Tensor) -> None:
    """Its darkest pixels grow brighter and its contrast fades, in the bands that it lies over."""
    veil = torch.zeros_like(street[:, :1])
    veil[..., 100:240, :] = 0.5
    clear, veiled = (veil_bands(x)[0, : -3 * BANDS].view(4, BANDS, -1) for x in (street, street * (1 - veil) + veil))
    darkest, _, contrast, _ = veiled - clear
    assert darkest[3:5].min() > 0.5
    assert contrast[3:5].max() < 0
    for band in (0, 1, 6, 7):
        torch.testing.assert_close(veiled[:, band], clear[:, band])


def test_bands_of_features_are_of_any_size() -> None:
    rows = torch.arange(36.0).view(1, 1, 36, 1).expand(1, 2, 36, 40)
    found = feature_bands(rows).view(2, COARSE_BANDS)
    torch.testing.assert_close(found[0], torch.tensor([5.5, 17.5, 29.5]))
    torch.testing.assert_close(feature_bands(rows[..., ::3, ::4]).view(2, COARSE_BANDS), found - 1.0, atol=0.1, rtol=0)


def test_an_unfitted_estimator_trusts_everything() -> None:
    estimator = Estimator(200, CONDITIONS).eval()
    scene, sensor = torch.rand(2, 200), torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        found = estimator.estimate(estimator.statistics(scene, sensor))
    assert found.familiarity.tolist() == [1, 1]
    assert ((found.strength >= 0) & (found.strength <= 1)).all()
