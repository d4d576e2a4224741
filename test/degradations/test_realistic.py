"""Realistic variants: what each does to an image, and that it is the same each time."""

from __future__ import annotations

import numpy as np
import pytest

from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.realistic import camera, codec, lens, optics, sensor, weather
from coop_perception.degradations.realistic.light import to_linear, to_srgb
from coop_perception.degradations.realistic.suites import MIXED, REALISTIC, SUITES, Scene, Variant
from coop_perception.metrics import psnr
from coop_perception.sample_scene.drive import SampleDrive

WIDTH, HEIGHT = 160, 120
VARIANTS = [*REALISTIC, *MIXED]


@pytest.fixture(scope="module")
def drive() -> tuple[np.ndarray, Scene]:
    drive = SampleDrive(5, WIDTH, HEIGHT)
    frame = drive.frame(130)
    return frame.image, Scene(drive.intrinsics, frame.depth)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_changes_the_image_the_same_each_time(variant: Variant, drive: tuple[np.ndarray, Scene]) -> None:
    image, scene = drive
    before = image.copy()
    first = variant.apply(image, scene, 3)
    np.testing.assert_array_equal(image, before)
    assert (first.dtype, first.shape) == (np.uint8, image.shape)
    np.testing.assert_array_equal(first, variant.apply(image, scene, 3))
    assert psnr(image, first) < 60


def test_names_are_distinct_and_none_is_a_condition_trained_on() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert not {variant.family for variant in VARIANTS} & set(CONDITIONS)
    assert set(SUITES) == {"realistic", "mixed"}


def test_families_grow_worse(drive: tuple[np.ndarray, Scene]) -> None:
    image, scene = drive
    for family in (
        "defocus",
        "noise_poisson",
        "noise_bayer",
        "impulses_random",
        "jpeg_offset",
        "webp",
        "snow",
        "lens_dirt",
    ):
        scores = [psnr(image, v.apply(image, scene, 1)) for v in REALISTIC if v.family == family]
        assert scores == sorted(scores, reverse=True), family


def test_light_and_back_is_identity() -> None:
    values = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    np.testing.assert_array_equal(to_srgb(to_linear(values)), values)


def test_motion_smears_along_its_way_alone() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    blurred = optics.motion_blur(image, 9, 0.0)
    rows, columns = np.nonzero(blurred[..., 0] > 20)
    assert set(rows) <= {19, 20, 21}
    assert 8 <= columns.max() - columns.min() + 1 <= 12
    turned = optics.motion_blur(image, 9, np.pi / 2)
    np.testing.assert_allclose(turned.transpose(1, 0, 2), blurred, atol=2)


def test_blurs_keep_the_light() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    for blurred in (
        optics.defocus(image, 3.5),
        optics.motion_blur(image, 12, 0.7),
        optics.anisotropic_blur(image, 1, 4, 0.3),
    ):
        assert to_linear(blurred).mean() == pytest.approx(to_linear(image).mean(), rel=0.03)


def test_radial_aberration_is_none_in_the_middle_and_whole_in_the_corners() -> None:
    ramp = np.linspace(0, 255, 201).astype(np.uint8)[None, :, None].repeat(101, 0).repeat(3, 2)
    moved = optics.radial_aberration(ramp, 4.0, -4.0).astype(int)
    assert (moved[50, 100] == ramp[50, 100]).all()
    slope = 255 / 200
    at_edge = 4 * 100 / np.hypot(50.5, 100.5)
    assert ramp[50, 195, 0] - moved[50, 195, 0] == pytest.approx(0.95 * at_edge * slope, abs=1.5)
    assert moved[50, 195, 2] - ramp[50, 195, 2] == pytest.approx(0.95 * at_edge * slope, abs=1.5)
    np.testing.assert_array_equal(moved[..., 1], ramp[..., 1])


def test_shifted_channels_go_where_they_are_sent() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    moved = optics.shifted_channels(image, (2, 0), (0, -3))
    np.testing.assert_array_equal(moved[:, 2:, 0], image[:, :-2, 0])
    np.testing.assert_array_equal(moved[:-3, :, 2], image[3:, :, 2])
    np.testing.assert_array_equal(moved[..., 1], image[..., 1])


def test_shot_noise_grows_as_the_root_of_light() -> None:
    rng = np.random.default_rng(2)
    deviations = []
    for value in (90, 220):
        grey = np.full((100, 100, 3), value, np.uint8)
        deviations.append(to_linear(sensor.poisson_gauss(grey, 500, 0, rng)).std())
    light = [float(to_linear(np.full((1, 1, 3), v, np.uint8)).mean()) for v in (90, 220)]
    assert deviations[1] / deviations[0] == pytest.approx((light[1] / light[0]) ** 0.5, rel=0.06)
    assert deviations[0] == pytest.approx((light[0] / 500) ** 0.5, rel=0.06)


def test_noise_through_a_mosaic_is_correlated_and_keeps_colours() -> None:
    colour = np.full((80, 80, 3), (200, 120, 60), np.uint8)
    noisy = sensor.bayer_noise(colour, 300, 5, np.random.default_rng(3))
    np.testing.assert_allclose(noisy.mean((0, 1)), (200, 120, 60), atol=4)
    red = noisy[..., 0].astype(float) - noisy[..., 0].mean()
    assert (red[:, 1:] * red[:, :-1]).mean() > 0.2 * red.var()


def test_grey_noise_leaves_colour_differences() -> None:
    colour = np.full((50, 50, 3), (200, 120, 60), np.uint8)
    light = to_linear(sensor.grey_noise(colour, 200, 5, np.random.default_rng(3)))
    assert np.std(light[..., 0] - light[..., 1]) < 0.02 < np.std(light[..., 1])


def test_impulses_hit_their_share() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    hit = sensor.random_impulses(grey, 0.08, np.random.default_rng(4)) != grey
    assert hit.mean() == pytest.approx(0.08, rel=0.1)


@pytest.mark.parametrize("offset", [(0, 0), (3, 5)])
def test_a_jpegs_grid_lies_where_it_is_put(offset: tuple[int, int]) -> None:
    image = np.random.default_rng(5).integers(100, 156, (64, 64, 3), np.uint8)
    image = codec.jpeg_at(image, 10, offset).astype(float)
    steps = np.abs(np.diff(image.mean(2), axis=1)).mean(0)
    of_phase = [steps[phase::8].mean() for phase in range(8)]
    assert int(np.argmax(of_phase)) == (offset[0] + 7) % 8


def test_dirt_and_missing_strokes_cover_their_share() -> None:
    image = np.full((240, 320, 3), 200, np.uint8)
    for share in (0.04, 0.3):
        dirty = lens.dirt(image, share, np.random.default_rng(6))
        assert (dirty[..., 0] < 190).mean() == pytest.approx(share, abs=0.03)
    missing = (lens.irregular_mask(image, 0.1, np.random.default_rng(7)) == 255).all(2).mean()
    assert 0.1 <= missing < 0.2


def test_haze_hides_what_is_far_in_its_own_colour(drive: tuple[np.ndarray, Scene]) -> None:
    image, scene = drive
    hazy = weather.haze(image, scene.depth, scene.intrinsics, 0.05, (0.8, 0.6, 0.4), 0.0, np.random.default_rng(8))
    far, near = scene.depth > 200, scene.depth < 5
    assert np.abs(hazy[far].astype(float) - np.array([204, 153, 102])).max() <= 3
    assert np.abs(hazy[near].astype(float) - image[near]).mean() < np.abs(hazy[far].astype(float) - image[far]).mean()


def test_another_cameras_image_is_clear() -> None:
    image = np.full((8, 8, 3), (100, 150, 200), np.uint8)
    assert camera.exposed(image, 1.0).mean() > image.mean() > camera.exposed(image, -1.0).mean()
    assert np.ptp(camera.saturated(image, 0.5)[0, 0]) == pytest.approx(50, abs=2)
    assert camera.balanced(image, 1.3, 1.0)[0, 0, 0] > 100
    assert {variant.family for variant in VARIANTS if variant.clear} == {"other_camera"}
