"""Adverse conditions: their physics on scenes of known truth, their bounds, their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.blur import chromatic_aberration, gaussian_blur
from coop_perception.degradations.compression import jpeg
from coop_perception.degradations.depth import depth_from_labels, estimate_horizon
from coop_perception.degradations.fog import estimate_airlight, fog, path_length, transmission
from coop_perception.degradations.guided_filter import guided_filter
from coop_perception.degradations.noise import gaussian_noise, impulse_noise
from coop_perception.metrics import psnr

HEIGHT, WIDTH = 120, 160
CAMERA = Intrinsics(WIDTH, HEIGHT, 140.0, 140.0, 79.5, 59.5)
ID = {semantic_class.name: semantic_class.id for semantic_class in CAMVID_CLASSES}


@pytest.fixture
def image() -> np.ndarray:
    """Coarse random blocks: edges and flat parts, and no value near 0 or 255."""
    blocks = np.random.default_rng(0).integers(60, 196, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture
def depth() -> np.ndarray:
    """Metres, growing upwards; sky in the top quarter."""
    rows = np.linspace(120, 5, HEIGHT, dtype=np.float32)
    rows[: HEIGHT // 4] = np.inf
    return np.repeat(rows[:, None], WIDTH, axis=1)


class TestRegistry:
    @pytest.mark.parametrize("name", CONDITIONS)
    def test_levels_are_reproducible_and_ever_more_severe(
        self, name: str, image: np.ndarray, depth: np.ndarray
    ) -> None:
        before = image.copy()
        scores = []
        for level in range(1, len(CONDITIONS[name].levels) + 1):
            result = degrade(image, name, level, seed=7, depth=depth, intrinsics=CAMERA)
            assert result.dtype == np.uint8
            assert result.shape == image.shape
            assert np.array_equal(result, degrade(image, name, level, seed=7, depth=depth, intrinsics=CAMERA))
            scores.append(psnr(image, result))
        assert np.array_equal(image, before)
        assert (np.diff([np.inf, *scores]) < 0).all()

    @pytest.mark.parametrize("name", CONDITIONS)
    def test_parameters_between_levels(self, name: str, image: np.ndarray, depth: np.ndarray) -> None:
        condition = CONDITIONS[name]
        mild, strong = condition.levels[0], condition.levels[-1]
        scores = [
            psnr(image, condition.apply(image, parameter, np.random.default_rng(0), depth, CAMERA))
            for parameter in (mild, (mild + strong) / 2, strong)
        ]
        assert scores[0] > scores[1] > scores[2]

    @pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise"])
    def test_seeds_matter(self, name: str, image: np.ndarray) -> None:
        assert not np.array_equal(degrade(image, name, 1, seed=0), degrade(image, name, 1, seed=1))

    def test_published_levels(self) -> None:
        levels = {name: condition.levels for name, condition in CONDITIONS.items()}
        assert levels["gaussian_noise"] == (0.05, 0.09, 0.13, 0.2)
        assert levels["fog"] == (0.005, 0.01, 0.02)
        assert levels["jpeg"] == (43, 12, 7, 4)

    def test_works_without_intrinsics(self, image: np.ndarray, depth: np.ndarray) -> None:
        assumed = degrade(image, "fog", 2, seed=0, depth=depth)
        stated = degrade(image, "fog", 2, seed=0, depth=depth, intrinsics=Intrinsics.from_fov(WIDTH, HEIGHT))
        assert np.array_equal(assumed, stated)

    def test_unknown_condition_lists_the_known(self, image: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"'mist'.*gaussian_noise.*fog"):
            degrade(image, "mist", 1, seed=0)

    @pytest.mark.parametrize("level", [0, 4, -1])
    def test_level_out_of_range(self, image: np.ndarray, depth: np.ndarray, level: int) -> None:
        with pytest.raises(ValueError, match=rf"fog: level is {level}, expected 1 to 3"):
            degrade(image, "fog", level, seed=0, depth=depth)

    def test_missing_depth_says_where_it_comes_from(self, image: np.ndarray) -> None:
        with pytest.raises(ValueError, match="depth_from_labels"):
            degrade(image, "fog", 1, seed=0)

    def test_wrong_arrays(self, image: np.ndarray, depth: np.ndarray) -> None:
        with pytest.raises(TypeError, match="float32, expected uint8"):
            degrade(image.astype(np.float32), "gaussian_noise", 1, seed=0)
        with pytest.raises(ValueError, match=r"\(120, 160\), expected \[H, W, 3\]"):
            degrade(image[..., 0], "gaussian_noise", 1, seed=0)
        with pytest.raises(ValueError, match="expected"):
            degrade(image[:0], "gaussian_noise", 1, seed=0)
        with pytest.raises(TypeError, match="float64, expected float32"):
            degrade(image, "fog", 1, seed=0, depth=depth.astype(np.float64))
        with pytest.raises(ValueError, match=r"\(60, 160\)"):
            degrade(image, "fog", 1, seed=0, depth=depth[:60])
        with pytest.raises(ValueError, match="160x120"):
            degrade(image[:60], "fog", 1, seed=0, depth=depth[:60], intrinsics=CAMERA)


class TestFog:
    def test_path_length_is_the_distance_to_the_point(self) -> None:
        camera = Intrinsics(4, 3, 2.0, 5.0, 1.0, 1.0)
        length = path_length(np.full((3, 4), 10, np.float32), camera)
        for v in range(3):
            for u in range(4):
                point = (10 * (u - 1.0) / 2.0, 10 * (v - 1.0) / 5.0, 10.0)
                assert length[v, u] == pytest.approx(np.linalg.norm(point), rel=1e-6)

    def test_transmission_at_the_visual_range(self) -> None:
        length = np.array([[0, 2.996 / 0.01, np.inf]], np.float32)
        assert transmission(length, 0.01)[0] == pytest.approx([1, 0.05, 0], abs=1e-4)

    def test_a_known_pixel(self) -> None:
        camera = Intrinsics(1, 1, 100.0, 100.0, 0.0, 0.0)
        scene = np.array([[[200, 100, 0]]], np.uint8)
        foggy = fog(scene, np.array([[50]], np.float32), 0.02, camera, np.array([180, 190, 250], np.float32))
        t = np.exp(-1.0)
        assert foggy[0, 0].tolist() == np.rint(t * scene[0, 0] + (1 - t) * np.array([180, 190, 250])).tolist()

    def test_the_sky_is_airlight_and_the_near_is_clear(self, image: np.ndarray, depth: np.ndarray) -> None:
        foggy = fog(image, depth, 0.02, CAMERA)
        assert (foggy[: HEIGHT // 4] == np.rint(estimate_airlight(image))).all()
        assert np.array_equal(fog(image, np.zeros_like(depth), 0.02, CAMERA), image)

    @settings(max_examples=25, deadline=None)
    @given(
        beta=st.floats(1e-4, 0.1),
        metres=st.floats(0.0, 1e4, width=32),
        value=st.integers(0, 255),
        light=st.integers(0, 255),
    )
    def test_stays_between_scene_and_airlight(self, beta: float, metres: float, value: int, light: int) -> None:
        scene = np.full((3, 3, 3), value, np.uint8)
        foggy = fog(
            scene,
            np.full((3, 3), metres, np.float32),
            beta,
            Intrinsics.from_fov(3, 3),
            np.full(3, light, np.float32),
        )
        assert min(value, light) <= foggy.min() <= foggy.max() <= max(value, light)

    def test_airlight_comes_from_the_sky_and_not_from_a_small_white_thing(self) -> None:
        street = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        street[:40] = (180, 200, 220)
        street[90:96, 50:56] = 255
        assert estimate_airlight(street).tolist() == [180, 200, 220]

    @pytest.mark.parametrize("beta", [0.0, -0.01, float("nan")])
    def test_bad_beta(self, image: np.ndarray, depth: np.ndarray, beta: float) -> None:
        with pytest.raises(ValueError, match="beta"):
            fog(image, depth, beta, CAMERA)

    @pytest.mark.parametrize("bad", [-1.0, float("nan")])
    def test_bad_depth(self, image: np.ndarray, depth: np.ndarray, bad: float) -> None:
        depth[60, 80] = bad
        with pytest.raises(ValueError, match="depth holds negative or NaN"):
            fog(image, depth, 0.01, CAMERA)


class TestNoise:
    @pytest.mark.parametrize("sigma", [0.05, 0.13])
    def test_additive_noise_has_the_stated_deviation(self, sigma: float) -> None:
        grey = np.full((200, 200, 3), 128, np.uint8)
        error = gaussian_noise(grey, sigma, np.random.default_rng(0)).astype(float) - 128
        assert error.std() == pytest.approx(255 * sigma, rel=0.02)
        assert error.mean() == pytest.approx(0, abs=1)
        channels = np.corrcoef(error.reshape(-1, 3).T)
        assert np.abs(channels - np.eye(3)).max() < 0.03

    def test_multiplicative_noise_grows_with_the_signal(self) -> None:
        scene = np.full((200, 200, 3), (0, 50, 100), np.uint8)
        noisy = gaussian_noise(scene, 0.2, np.random.default_rng(0), "multiplicative").astype(float)
        assert noisy.std(axis=(0, 1)) == pytest.approx([0, 10, 20], rel=0.03)

    def test_clips_instead_of_wrapping(self) -> None:
        black, white = np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)
        assert gaussian_noise(black, 0.05, np.random.default_rng(0)).max() < 100
        assert gaussian_noise(white, 0.05, np.random.default_rng(0)).min() > 155

    @pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
    def test_impulses_hit_the_stated_share(self, density: float) -> None:
        grey = np.full((200, 200, 3), 128, np.uint8)
        noisy = impulse_noise(grey, density, np.random.default_rng(0))
        assert (noisy == 0).mean() == pytest.approx(density / 2, abs=0.005)
        assert (noisy == 255).mean() == pytest.approx(density / 2, abs=0.005)
        assert ((noisy == 0) | (noisy == 255) | (noisy == 128)).all()

    def test_bad_parameters(self, image: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match=r"sigma is -0\.1"):
            gaussian_noise(image, -0.1, rng)
        with pytest.raises(ValueError, match="density is 2"):
            impulse_noise(image, 2, rng)


class TestLensAndCodec:
    def test_blur_spreads_a_point_by_sigma(self) -> None:
        point = np.zeros((61, 61, 3), np.uint8)
        point[30, 30] = 255
        spread = gaussian_blur(point, 1.2)[..., 0].astype(float)
        rows = spread.sum(axis=1) / spread.sum()
        assert np.sqrt((rows * (np.arange(61) - 30) ** 2).sum()) == pytest.approx(1.2, rel=0.05)

    def test_blur_keeps_a_flat_image(self) -> None:
        flat = np.full((40, 40, 3), (10, 128, 250), np.uint8)
        assert np.array_equal(gaussian_blur(flat, 15.2), flat)

    @pytest.mark.parametrize("shift", [2, 6, 14])
    def test_red_moves_twice_as_far_as_blue(self, image: np.ndarray, shift: int) -> None:
        moved = chromatic_aberration(image, shift)
        assert np.array_equal(moved[:, shift:, 0], image[:, :-shift, 0])
        assert np.array_equal(moved[..., 1], image[..., 1])
        assert np.array_equal(moved[:, shift // 2 :, 2], image[:, : -shift // 2, 2])
        assert (moved[:, :shift, 0] == image[:, :1, 0]).all()

    def test_half_pixels_interpolate(self) -> None:
        ramp = np.repeat(np.arange(0, 160, 4, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
        assert (chromatic_aberration(ramp, 0.5)[:, 1:, 0].astype(int) == ramp[:, 1:, 0] - 2).all()

    def test_jpeg_keeps_colours_in_order(self) -> None:
        flat = np.full((32, 32, 3), (200, 100, 30), np.uint8)
        assert np.abs(jpeg(flat, 95).astype(int) - flat).max() <= 4

    def test_bad_parameters(self, image: np.ndarray) -> None:
        with pytest.raises(ValueError, match="sigma is 0"):
            gaussian_blur(image, 0)
        with pytest.raises(ValueError, match="shift is -2"):
            chromatic_aberration(image, -2)
        with pytest.raises(ValueError, match="quality is 0"):
            jpeg(image, 0)


STREET_CAMERA = Intrinsics(480, 360, 420.0, 420.0, 239.5, 179.5)
HORIZON = 150
COLOURS = np.full((256, 3), 128, np.uint8)
COLOURS[[ID["Sky"], ID["Building"], ID["Road"], ID["Car"], ID["SignSymbol"]]] = (
    (200, 220, 250),
    (150, 60, 40),
    (70, 70, 75),
    (20, 60, 190),
    (220, 200, 20),
)


def street() -> tuple[np.ndarray, np.ndarray]:
    """Labels and image: sky, a wall to the right with its foot at row 180, road, a car from row 150 to 270."""
    mask = np.full((360, 480), ID["Sky"], np.uint8)
    mask[60:180, 180:] = ID["Building"]
    mask[180:] = ID["Road"]
    mask[HORIZON:270, 30:150] = ID["Car"]
    return mask, COLOURS[mask]


def ground_depth(row: float, camera_height: float = 1.5) -> float:
    return camera_height * STREET_CAMERA.fy / (row - HORIZON)


class TestDepthFromLabels:
    def test_ground_and_what_stands_on_it(self) -> None:
        mask, image = street()
        depth = depth_from_labels(mask, image, STREET_CAMERA, camera_height=1.5, horizon=HORIZON)
        assert depth.dtype == np.float32
        assert depth.shape == mask.shape
        assert np.isinf(depth[20, 20])
        for row in (220, 300, 345):
            assert depth[row, 300] == pytest.approx(ground_depth(row), rel=0.05)
        assert depth[120, 330] == pytest.approx(ground_depth(180), rel=0.05)
        assert depth[210, 90] == pytest.approx(ground_depth(270), rel=0.05)

    def test_a_higher_camera_sees_everything_farther(self) -> None:
        mask, image = street()
        depth = depth_from_labels(mask, image, STREET_CAMERA, camera_height=3.0, horizon=HORIZON)
        assert depth[300, 300] == pytest.approx(ground_depth(300, 3.0), rel=0.05)

    def test_a_wall_recedes_along_its_foot(self) -> None:
        mask, _ = street()
        mask[60:, 180:] = ID["Building"]
        for column in range(180, 480):  # the foot falls from row 180 to row 330
            mask[180 + (column - 180) // 2 :, column] = ID["Road"]
        depth = depth_from_labels(mask, COLOURS[mask], STREET_CAMERA, horizon=HORIZON)
        for column in (260, 330, 420):
            assert depth[120, column] == pytest.approx(ground_depth(180 + (column - 180) / 2), rel=0.1)

    def test_a_sign_without_a_foot_is_as_far_as_what_it_is_fixed_to(self) -> None:
        mask, _ = street()
        mask[110:HORIZON, 70:110] = ID["SignSymbol"]  # on the car's roof
        depth = depth_from_labels(mask, COLOURS[mask], STREET_CAMERA, horizon=HORIZON)
        assert depth[130, 90] == pytest.approx(ground_depth(270), rel=0.05)

    def test_unlabelled_things_stand_on_the_ground(self) -> None:
        mask, _ = street()
        mask[210:300, 300:420] = IGNORE_ID
        depth = depth_from_labels(mask, COLOURS[mask], STREET_CAMERA, horizon=HORIZON)
        assert depth[240, 360] == pytest.approx(ground_depth(300), rel=0.05)

    def test_a_seam_follows_the_image_and_not_the_label(self) -> None:
        mask, image = street()
        image[57:60, 180:] = COLOURS[ID["Building"]]  # the wall is three rows higher than its label
        visible = np.exp(-0.01 * depth_from_labels(mask, image, STREET_CAMERA, horizon=HORIZON))
        assert visible[58, 330] > 0.5 * visible[120, 330]
        assert visible[55, 330] < 0.1 * visible[120, 330]

    @pytest.mark.parametrize("fill", [ID["Sky"], ID["Building"], ID["Road"], IGNORE_ID])
    def test_one_class_everywhere(self, fill: int) -> None:
        mask = np.full((HEIGHT, WIDTH), fill, np.uint8)
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        depth = depth_from_labels(mask, image, CAMERA)
        assert np.isinf(depth).all() if fill == ID["Sky"] else (np.isfinite(depth) & (depth > 0)).all()

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_any_mask_gives_depth_that_fog_takes(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ids = np.array([*range(11), IGNORE_ID], np.uint8)
        mask = rng.choice(ids, (6, 8)).repeat(8, axis=0).repeat(8, axis=1)
        image = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        camera = Intrinsics.from_fov(64, 48)
        depth = depth_from_labels(mask, image, camera)
        assert not np.isnan(depth).any()
        assert depth.min() >= 0
        assert fog(image, depth, 0.02, camera).shape == image.shape

    @pytest.mark.parametrize("pitch", [-40, 0, 40])
    @pytest.mark.parametrize("camera_height", [1.2, 1.5])
    def test_horizon_of_a_street_that_is_seen_for_50_metres(self, pitch: int, camera_height: float) -> None:
        mask = np.full((360, 480), ID["Building"], np.uint8)
        mask[round(180 + pitch + camera_height * STREET_CAMERA.fy / 50) :] = ID["Road"]
        assert estimate_horizon(mask, STREET_CAMERA, camera_height) == pytest.approx(180 + pitch, abs=0.5)

    def test_horizon_without_a_street_is_level(self) -> None:
        mask = np.full((360, 480), ID["Building"], np.uint8)
        assert estimate_horizon(mask, STREET_CAMERA) == STREET_CAMERA.cy

    def test_a_building_behind_a_car_is_not_nearer_than_the_buildings_beside_it(self) -> None:
        mask = np.full((360, 480), ID["Building"], np.uint8)
        mask[200:] = ID["Road"]
        mask[160:320, 100:220] = ID["Car"]
        depth = depth_from_labels(mask, COLOURS[mask], STREET_CAMERA, horizon=HORIZON)
        assert depth[100, 160] == pytest.approx(ground_depth(200), rel=0.05)
        assert depth[250, 160] == pytest.approx(ground_depth(320), rel=0.05)

    def test_specks_without_a_label_do_not_matter(self) -> None:
        mask, image = street()
        clean = depth_from_labels(mask, image, STREET_CAMERA, horizon=HORIZON)
        rng = np.random.default_rng(0)
        mask[rng.integers(190, 360, 40), rng.integers(160, 480, 40)] = IGNORE_ID
        assert np.array_equal(depth_from_labels(mask, image, STREET_CAMERA, horizon=HORIZON), clean)

    def test_a_branch_that_is_labelled_as_sky_is_seen_through_fog(self) -> None:
        mask, image = street()
        image[10:60, 300:303] = COLOURS[ID["Road"]]
        visible = np.exp(-0.01 * depth_from_labels(mask, image, STREET_CAMERA, horizon=HORIZON))
        assert visible[30, 301] > 0.7 * visible[120, 330]
        assert visible[30, 330] == 0

    def test_bad_input(self) -> None:
        mask, image = street()
        with pytest.raises(ValueError, match=r"\[11\].*255"):
            depth_from_labels(np.full_like(mask, 11), image, STREET_CAMERA)
        with pytest.raises(ValueError, match="equal sizes"):
            depth_from_labels(mask[:50], image, STREET_CAMERA)
        with pytest.raises(ValueError, match="camera_height is 0"):
            depth_from_labels(mask, image, STREET_CAMERA, camera_height=0)


class TestGuidedFilter:
    def test_keeps_the_edges_that_the_guide_has(self) -> None:
        guide = np.zeros((40, 40, 3), np.uint8)
        guide[:, 20:] = (200, 120, 40)
        source = (guide[..., 0] > 0).astype(np.float32)
        assert np.abs(guided_filter(guide, source, 4, 1e-6) - source).max() < 0.06

    def test_smooths_where_the_guide_is_flat(self) -> None:
        noise = np.random.default_rng(0).random((40, 40), dtype=np.float32)
        smooth = guided_filter(np.full((40, 40, 3), 90, np.uint8), noise, 4, 1e-4)
        assert smooth.std() < 0.2 * noise.std()
        assert smooth.mean() == pytest.approx(noise.mean(), abs=0.02)
