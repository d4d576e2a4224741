"""Depth from labels: on streets of known geometry."""

from __future__ import annotations

import numpy as np
import pytest
from degradation_scenes import CAMERA, HEIGHT, WIDTH
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations.depth import depth_from_labels, estimate_horizon
from coop_perception.degradations.fog import fog
from coop_perception.degradations.guided_filter import guided_filter

ID = {semantic_class.name: semantic_class.id for semantic_class in CAMVID_CLASSES}
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
