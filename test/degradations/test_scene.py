"""What the degrade node makes of calibration, depth images and stamps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.camera import Intrinsics
from coop_perception.degradations.scene import depth_of, intrinsics_of
from coop_perception.degrade.stamp_pairing import KEPT, StampPairing
from coop_perception.images import ImageError, to_depth


def info(width: int, height: int, *k: float, roi: tuple[int, int, int, int] = (0, 0, 0, 0)) -> SimpleNamespace:
    region = SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3])
    return SimpleNamespace(width=width, height=height, k=np.array(k or [0.0] * 9), roi=region)


K = (500.0, 0, 319.5, 0, 520.0, 99.5, 0, 0, 1)


def test_intrinsics_are_scaled_to_the_images_size() -> None:
    calibrated = info(640, 480, 500.0, 0, 319.5, 0, 520.0, 99.5, 0, 0, 1)
    assert intrinsics_of(calibrated, 640, 480) == (Intrinsics(640, 480, 500.0, 520.0, 319.5, 99.5), None)
    half, assumed = intrinsics_of(calibrated, 320, 240)
    assert assumed is None
    assert half == Intrinsics(320, 240, 250.0, 260.0, 159.5, 49.5)  # the centre of the image stays its centre


def test_a_crop_keeps_the_focal_length_and_moves_the_centre() -> None:
    """As image_geometry has it; with binning the image is smaller than the region."""
    cropped = info(640, 480, *K, roi=(160, 60, 320, 240))
    assert intrinsics_of(cropped, 320, 240) == (Intrinsics(320, 240, 500.0, 520.0, 159.5, 39.5), None)
    assert intrinsics_of(cropped, 160, 120) == (Intrinsics(160, 120, 250.0, 260.0, 79.5, 19.5), None)
    whole, _ = intrinsics_of(cropped, 640, 480)
    assert whole == Intrinsics(640, 480, 500.0, 520.0, 319.5, 99.5)  # the images hold everything all the same


def test_a_crop_beyond_the_sensor_is_not_taken() -> None:
    intrinsics, assumed = intrinsics_of(info(640, 480, *K, roi=(600, 0, 320, 240)), 320, 240)
    assert intrinsics == Intrinsics.from_fov(320, 240)
    assert "a region of interest that is not within its 640x480: " in assumed


@pytest.mark.parametrize("message", [None, info(640, 480), info(0, 0, 500.0, 0, 1, 0, 500.0, 1, 0, 0, 1)])
def test_without_calibration_a_field_of_view_is_assumed_and_said(message: SimpleNamespace | None) -> None:
    intrinsics, assumed = intrinsics_of(message, 320, 240)
    assert intrinsics == Intrinsics.from_fov(320, 240)
    assert "60 degrees is assumed" in assumed


@pytest.mark.parametrize("at", [1e300, -1e9, 2000.0])
def test_a_centre_far_outside_the_image_is_not_taken(at: float) -> None:
    intrinsics, assumed = intrinsics_of(info(640, 480, 500.0, 0, at, 0, 500.0, at, 0, 0, 1), 640, 480)
    assert intrinsics == Intrinsics.from_fov(640, 480)
    assert "60 degrees is assumed" in str(assumed)
    assert len(str(assumed)) < 200


@pytest.mark.parametrize("focal", [1.0, 5.0, 1e6, np.inf, np.nan])
def test_a_focal_length_that_no_camera_has_is_not_taken(focal: float) -> None:
    """An uncalibrated driver sends the identity matrix."""
    intrinsics, assumed = intrinsics_of(info(640, 480, focal, 0, 0, 0, focal, 0, 0, 0, 1), 640, 480)
    assert intrinsics == Intrinsics.from_fov(640, 480)
    assert "60 degrees is assumed" in assumed


@pytest.mark.parametrize("k", [(500.0, 0, np.nan, 0, 500.0, 99.5, 0, 0, 1), (np.nan,) * 9])
def test_a_calibration_of_no_numbers_is_not_taken(k: tuple[float, ...]) -> None:
    intrinsics, assumed = intrinsics_of(info(640, 480, *k), 640, 480)
    assert intrinsics == Intrinsics.from_fov(640, 480)
    assert "holds no calibration" in assumed


def test_an_image_that_was_turned_since_is_not_of_the_calibration() -> None:
    intrinsics, assumed = intrinsics_of(info(640, 480, *K), 480, 640)
    assert intrinsics == Intrinsics.from_fov(480, 640)
    assert "camera_info is of 640x480, the image turned to 480x640: " in assumed


@pytest.mark.parametrize("size", [(1, 8192), (8192, 1), (100, 900)])
def test_an_image_that_no_camera_has_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"image of {size[0]}x{size[1]}: .* at most 8 times as long"):
        intrinsics_of(None, *size)


def depth_message(samples: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> SimpleNamespace:
    rows = samples.astype(samples.dtype.newbyteorder(">" if big else "<")).view(np.uint8)
    rows = np.pad(rows.reshape(samples.shape[0], -1), ((0, 0), (0, padding)))
    return SimpleNamespace(
        height=samples.shape[0],
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_both_depth_encodings_in_any_layout(height: int, width: int, padding: int, big: bool, seed: int) -> None:
    millimetres = np.random.default_rng(seed).integers(0, 2**16, (height, width), dtype=np.uint16)
    metres = np.where(millimetres == 0, np.nan, millimetres.astype(np.float32) / 1000).astype(np.float32)
    np.testing.assert_array_equal(to_depth(depth_message(millimetres, "16UC1", padding, big)), metres)
    np.testing.assert_array_equal(to_depth(depth_message(metres, "32FC1", padding, big)), metres)


def test_depth_in_another_encoding_or_cut_is_refused() -> None:
    message = depth_message(np.ones((2, 3), np.float32), "32FC1")
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match="24 bytes were expected"):
        to_depth(message)
    message.encoding = "mono8"
    with pytest.raises(ImageError, match="expected 32FC1"):
        to_depth(message)


CAMERA = Intrinsics(4, 100, 50.0, 50.0, 1.5, 40.0)


def test_an_empty_street_is_what_a_level_camera_sees() -> None:
    depth, assumed = depth_of(None, CAMERA, 1.5)
    assert "no depth image" in assumed
    assert depth.shape == (100, 4)
    assert depth.dtype == np.float32
    # A point of the street at depth d is camera_height below the axis: row - cy = fy * camera_height / d.
    np.testing.assert_allclose(depth[90], 50.0 * 1.5 / 50, rtol=1e-6)
    assert np.all(depth[:41] == depth[0])
    assert np.all(np.diff(depth[:, 0]) <= 0)


def test_what_a_sensor_did_not_see_is_taken_from_the_street() -> None:
    measured = np.full((100, 4), 7.0, np.float32)
    measured[60] = np.nan, 0.0, np.inf, -np.inf
    depth, assumed = depth_of(depth_message(measured, "32FC1"), CAMERA, 1.5)
    plane, _ = depth_of(None, CAMERA, 1.5)
    assert assumed is None
    np.testing.assert_array_equal(depth[60], [plane[60, 0], plane[60, 1], np.inf, 0.0])
    assert np.all(np.delete(depth, 60, 0) == 7.0)


def test_a_depth_image_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="depth image of 4x99, frame of 4x100"):
        depth_of(depth_message(np.ones((99, 4), np.float32), "32FC1"), CAMERA, 1.5)


def test_pairs_whichever_comes_first() -> None:
    pairing: StampPairing[str, str] = StampPairing()
    assert pairing.image(1, "image 1") == []
    assert pairing.depth(1, "depth 1") == [("image 1", "depth 1")]
    assert pairing.depth(2, "depth 2") == []
    assert pairing.image(2, "image 2") == [("image 2", "depth 2")]


def test_an_image_waits_no_longer_than_for_the_next_one() -> None:
    pairing: StampPairing[str, str] = StampPairing()
    assert pairing.image(1, "image 1") == []
    assert pairing.image(2, "image 2") == [("image 1", None)]
    assert pairing.depth(1, "too late") == []
    assert pairing.depth(2, "depth 2") == [("image 2", "depth 2")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=40))
def test_every_image_comes_out_once_in_order_and_only_with_its_own_depth(events: list[tuple[bool, int]]) -> None:
    pairing: StampPairing[tuple[int, int], int] = StampPairing()
    put, out = [], []
    for number, (is_image, stamp) in enumerate(events):
        if is_image:
            put.append((number, stamp))
            out += pairing.image(stamp, (number, stamp))
        else:
            out += pairing.depth(stamp, stamp)
    out += pairing.flush()
    assert [image for image, _ in out] == put
    assert all(depth in (None, image[1]) for image, depth in out)


def test_depth_images_without_a_camera_image_do_not_pile_up() -> None:
    pairing: StampPairing[str, int] = StampPairing()
    for stamp in range(KEPT + 1):
        pairing.depth(stamp, stamp)
    assert pairing.image(0, "image") == []
    assert pairing.image(KEPT, "image") == [("image", None), ("image", KEPT)]
