"""Fog and rain: their physics on scenes of known truth, their bounds, their errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from degradation_scenes import CAMERA, HEIGHT, WIDTH, blocks, receding
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.camera import Intrinsics
from coop_perception.degradations.fog import estimate_airlight, fog, path_length, transmission
from coop_perception.degradations.rain import rain, rain_streaks
from coop_perception.metrics import psnr


@pytest.fixture
def image() -> np.ndarray:
    return blocks()


@pytest.fixture
def depth() -> np.ndarray:
    return receding()


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


LIGHT = np.array([180, 190, 200], np.float32)
STILL = (0.0, 0.0)
"""No wind, and the vehicle stands."""
STREET_CAMERA = Intrinsics.from_fov(480, 360)


class TestRain:
    @pytest.mark.parametrize(("beta", "radius"), [(0.005, 0.01), (0.01, 0.005), (0.015, 0.002)])
    def test_the_published_equation(self, beta: float, radius: float) -> None:
        """Against the equation as printed, on a flat wall, with the streaks that the same seed draws."""
        scene, metres = np.full((360, 480, 3), (200, 100, 40), np.uint8), 60.0
        depth = np.full((360, 480), metres, np.float32)
        rainy = rain(scene, depth, beta, np.random.default_rng(5), STREET_CAMERA, LIGHT, STILL)
        streaks = rain_streaks(1500 * beta, np.random.default_rng(5), STREET_CAMERA, STILL)[..., None].astype(float)

        distance = path_length(depth, STREET_CAMERA)[..., None].astype(float)
        alpha, d1 = 2 * beta, 2 * STREET_CAMERA.fx * radius
        layer = streaks * np.exp(-alpha * np.maximum(d1, distance))
        veil = 1 - np.exp(-beta * distance)
        expected = scene * (1 - layer - veil) + 255 * layer + LIGHT * veil
        assert np.abs(rainy - expected).max() <= 0.51

    def test_between_streaks_it_is_fog(self) -> None:
        scene, depth = (np.repeat(np.repeat(a, 3, axis=0), 3, axis=1) for a in (blocks(), receding()))
        rainy = rain(scene, depth, 0.005, np.random.default_rng(0), STREET_CAMERA, LIGHT, STILL)
        clear = rain_streaks(7.5, np.random.default_rng(0), STREET_CAMERA, STILL) == 0
        assert 0.3 < clear.mean() < 0.95
        assert np.array_equal(rainy[clear], fog(scene, depth, 0.005, STREET_CAMERA, LIGHT)[clear])

    def test_no_streaks_before_the_sky(self, image: np.ndarray, depth: np.ndarray) -> None:
        rainy = rain(image, depth, 0.015, np.random.default_rng(0), CAMERA, LIGHT)
        assert (rainy[: HEIGHT // 4] == LIGHT).all()

    def test_hardly_any_rain_is_hardly_seen(self, image: np.ndarray, depth: np.ndarray) -> None:
        depth = np.minimum(depth, 100)
        scores = [psnr(image, rain(image, depth, b, np.random.default_rng(0), CAMERA)) for b in (1e-6, 1e-4, 1e-2)]
        assert scores[0] > 60
        assert (np.diff(scores) < 0).all()

    def test_more_rain_is_more_drops(self) -> None:
        covered = [
            np.mean([(rain_streaks(n, np.random.default_rng(s), STREET_CAMERA, STILL) > 0).mean() for s in range(4)])
            for n in (2, 4, 8)
        ]
        assert covered[1] == pytest.approx(2 * covered[0], rel=0.15)
        assert covered[2] == pytest.approx(4 * covered[0], rel=0.2)

    @pytest.mark.parametrize("wind", [-3.0, 0.0, 3.0])
    def test_streaks_lean_with_the_wind(self, wind: float) -> None:
        streaks = rain_streaks(8, np.random.default_rng(0), STREET_CAMERA, (wind, 0.0))
        # Drops of 2 to 4 mm fall at 6.6 to 8.7 m/s.
        assert lean(streaks) == pytest.approx(np.degrees(np.arctan(wind / 7.6)), abs=3)

    def test_streaks_part_before_a_vehicle_that_drives(self) -> None:
        streaks = rain_streaks(8, np.random.default_rng(0), STREET_CAMERA, (0.0, 15.0))
        left, right = lean(streaks[:, :160]), lean(streaks[:, 320:])
        assert left < -8
        assert right > 8

    def test_drops_fall_elsewhere_in_the_next_frame(self) -> None:
        rng = np.random.default_rng(0)
        one, other = (rain_streaks(8, rng, STREET_CAMERA, STILL) for _ in range(2))
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05

    @settings(max_examples=25, deadline=None)
    @given(
        beta=st.floats(1e-5, 0.03), metres=st.floats(0.0, 1e4, width=32), value=st.integers(0, 255), seed=st.integers(0)
    )
    def test_stays_between_the_darkest_and_white(self, beta: float, metres: float, value: int, seed: int) -> None:
        camera = Intrinsics.from_fov(40, 30)
        scene, depth = np.full((30, 40, 3), value, np.uint8), np.full((30, 40), metres, np.float32)
        rainy = rain(scene, depth, beta, np.random.default_rng(seed), camera, LIGHT)
        assert min(value, 180) <= rainy.min()

    @pytest.mark.parametrize("beta", [0.0, -0.01, float("nan")])
    def test_bad_beta(self, image: np.ndarray, depth: np.ndarray, beta: float) -> None:
        with pytest.raises(ValueError, match="beta"):
            rain(image, depth, beta, np.random.default_rng(0), CAMERA)

    @pytest.mark.parametrize("bad", [-1.0, float("nan")])
    def test_bad_depth(self, image: np.ndarray, depth: np.ndarray, bad: float) -> None:
        depth[60, 80] = bad
        with pytest.raises(ValueError, match="depth holds negative or NaN"):
            rain(image, depth, 0.01, np.random.default_rng(0), CAMERA)


def lean(streaks: np.ndarray) -> float:
    """Main direction of streaks, in degrees from the vertical, positive towards the lower right."""
    dx, dy = cv2.Sobel(streaks, cv2.CV_64F, 1, 0), cv2.Sobel(streaks, cv2.CV_64F, 0, 1)
    # The structure tensor's weak direction runs along the streaks.
    return float(np.degrees(0.5 * np.arctan2(-2 * (dx * dy).sum(), (dx * dx).sum() - (dy * dy).sum())))
