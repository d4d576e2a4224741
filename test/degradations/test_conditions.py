"""The registry of adverse conditions, and those that happen in lens, sensor and codec."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from degradation_scenes import CAMERA, HEIGHT, WIDTH, blocks, receding

from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.blur import chromatic_aberration, gaussian_blur
from coop_perception.degradations.compression import jpeg
from coop_perception.degradations.noise import gaussian_noise, impulse_noise
from coop_perception.metrics import psnr
from coop_perception.sample_scene.drive import Frame, SampleDrive

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image() -> np.ndarray:
    return blocks()


@pytest.fixture
def depth() -> np.ndarray:
    return receding()


@pytest.fixture(scope="module")
def drive_frame() -> tuple[Frame, Intrinsics]:
    drive = SampleDrive()
    return drive.frame(40), drive.intrinsics


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

    @pytest.mark.parametrize("name", CONDITIONS)
    def test_a_parameters_level_is_the_one_it_was_made_from(self, name: str) -> None:
        condition = CONDITIONS[name]
        for level in np.linspace(0, len(condition.levels), 13):
            assert condition.level_of(condition.at(float(level))) == pytest.approx(level)
        assert condition.level_of(condition.absent) == 0

    @pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "rain", "reflection"])
    def test_seeds_matter(self, name: str, image: np.ndarray, depth: np.ndarray) -> None:
        one, other = (degrade(image, name, 1, seed=seed, depth=depth) for seed in (0, 1))
        assert not np.array_equal(one, other)

    @pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "rain"])
    def test_frames_of_a_clip_differ(self, name: str, image: np.ndarray, depth: np.ndarray) -> None:
        one, other = (degrade(image, name, 1, seed=0, frame=frame, depth=depth) for frame in (0, 1))
        assert not np.array_equal(one, other)

    def test_a_reflection_stays_through_a_clip(self, image: np.ndarray) -> None:
        one, other = (degrade(image, "reflection", 2, seed=0, frame=frame) for frame in (0, 1))
        assert np.array_equal(one, other)

    def test_every_level_is_worse_on_the_sample_drive(self, drive_frame: tuple[Frame, Intrinsics]) -> None:
        frame, intrinsics = drive_frame
        for name, condition in CONDITIONS.items():
            scores = [
                psnr(frame.image, degrade(frame.image, name, level, seed=0, depth=frame.depth, intrinsics=intrinsics))
                for level in range(1, len(condition.levels) + 1)
            ]
            assert (np.diff([40, *scores, 10]) < 0).all(), (name, scores)

    @pytest.mark.parametrize("name", CONDITIONS)
    @pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (37, 53)])
    def test_odd_sizes(self, name: str, height: int, width: int) -> None:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        depth = np.full((height, width), 20, np.float32)
        for level in range(1, len(CONDITIONS[name].levels) + 1):
            assert degrade(image, name, level, seed=0, depth=depth).shape == image.shape

    @pytest.mark.parametrize("name", CONDITIONS)
    def test_memory_layout_does_not_matter(self, name: str, image: np.ndarray, depth: np.ndarray) -> None:
        contiguous = degrade(image[:, ::-1].copy(), name, 2, seed=0, depth=depth[:, ::-1].copy())
        assert np.array_equal(degrade(image[:, ::-1], name, 2, seed=0, depth=depth[:, ::-1]), contiguous)

    def test_published_levels(self) -> None:
        levels = {name: condition.levels for name, condition in CONDITIONS.items()}
        assert list(levels) == [
            "gaussian_blur",
            "gaussian_noise",
            "impulse_noise",
            "jpeg",
            "chromatic_aberration",
            "fog",
            "rain",
            "reflection",
        ]
        assert levels["gaussian_noise"] == (0.05, 0.09, 0.13, 0.2)
        assert levels["fog"] == (0.005, 0.01, 0.02)
        assert levels["rain"] == (0.005, 0.01, 0.015)
        assert levels["jpeg"] == (43, 12, 7, 4)

    @pytest.mark.parametrize("part", [(), ("--suites",)])
    def test_the_document_has_what_the_registry_says(self, part: tuple[str, ...]) -> None:
        printed = subprocess.run(
            [sys.executable, ROOT / "tools/conditions_document.py", *part],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
        assert printed in (ROOT / "docs/conditions.md").read_text(), (
            "replace that part of docs/conditions.md by what tools/conditions_document.py (--suites) prints"
        )

    def test_every_condition_says_what_it_computes_and_where_that_comes_from(self) -> None:
        for condition in CONDITIONS.values():
            explained = condition.function.__doc__
            assert ".. math::" in explained
            assert "Source" in explained

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
        with pytest.raises(TypeError, match="reflected is float32, expected uint8"):
            degrade(image, "reflection", 1, seed=0, reflected=image.astype(np.float32))
        with pytest.raises(TypeError, match="float64, expected float32"):
            degrade(image, "fog", 1, seed=0, depth=depth.astype(np.float64))
        with pytest.raises(ValueError, match=r"\(60, 160\)"):
            degrade(image, "fog", 1, seed=0, depth=depth[:60])
        with pytest.raises(ValueError, match="160x120"):
            degrade(image[:60], "fog", 1, seed=0, depth=depth[:60], intrinsics=CAMERA)


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
