"""The sample drive: deterministic, completely labelled, and geometrically exact."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES
from coop_perception.sample_scene.drive import Frame, SampleDrive
from coop_perception.sample_scene.raster import Camera, Canvas, SurfaceList, Texture

ID = {c.name: c.id for c in CAMVID_CLASSES}


@pytest.fixture(scope="module")
def drive() -> SampleDrive:
    return SampleDrive(seed=4)


@pytest.fixture(scope="module")
def frames(drive: SampleDrive) -> list[Frame]:
    return [drive.frame(i) for i in range(0, 600, 60)]


def same(a: Frame, b: Frame) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.image, b.image), (a.mask, b.mask), (a.depth, b.depth)))


def test_same_bytes_in_any_order_and_instance(drive: SampleDrive, frames: list[Frame]) -> None:
    other = SampleDrive(seed=4)
    for i in (540, 0, 240):
        assert same(other.frame(i), frames[i // 60])


def test_long_runs_do_not_change_earlier_frames() -> None:
    drive = SampleDrive(seed=9, width=160, height=120)
    early = drive.frame(3)
    for i in range(0, 6000, 1500):
        drive.frame(i)
    assert same(drive.frame(3), early)


def test_shapes_types_and_labels(drive: SampleDrive, frames: list[Frame]) -> None:
    assert (drive.intrinsics.width, drive.intrinsics.height) == (480, 360)
    for frame in frames:
        assert frame.image.shape == (360, 480, 3)
        assert frame.image.dtype == np.uint8
        assert frame.mask.shape == frame.depth.shape == (360, 480)
        assert frame.mask.dtype == np.uint8
        assert frame.depth.dtype == np.float32
        assert frame.mask.max() < len(CAMVID_CLASSES)


def test_a_drive_shows_every_class_and_most_frames_nine(frames: list[Frame]) -> None:
    counts = [len(np.unique(f.mask)) for f in frames]
    assert set(np.unique(np.stack([f.mask for f in frames]))) == {c.id for c in CAMVID_CLASSES}
    assert sum(n >= 9 for n in counts) > len(counts) / 2


def test_depth_is_infinite_exactly_in_the_sky(frames: list[Frame]) -> None:
    for frame in frames:
        assert np.array_equal(np.isposinf(frame.depth), frame.mask == ID["Sky"])
        assert frame.depth.min() > 0


@pytest.mark.parametrize("index", [0, 180, 420])
def test_road_depth_is_that_of_the_ground_plane(drive: SampleDrive, frames: list[Frame], index: int) -> None:
    camera, frame = drive.camera(index), frames[index // 60]
    rows, columns = np.nonzero(frame.mask == ID["Road"])
    expected = camera.height / np.cos(camera.pitch) * camera.intrinsics.fy / (rows - camera.horizon())
    assert len(rows) > 10_000
    np.testing.assert_allclose(frame.depth[rows, columns], expected, rtol=1e-4)


def test_surface_depth_is_that_of_its_plane() -> None:
    camera = Camera(Intrinsics.from_fov(160, 120), x=0.4, height=1.5, z=2.0, yaw=0.2, pitch=-0.05)
    corner, right, down = np.array([-2.0, 4.0, 8.0]), np.array([5.0, 0.0, 6.0]), np.array([0.0, -4.0, 0.0])
    surfaces = SurfaceList()
    surfaces.add(corner, right, down, Texture(np.full((64, 64, 4), 255, np.uint8)), ID["Building"])
    canvas = Canvas(camera)
    canvas.draw(surfaces.done(), 100.0)
    rows, columns = np.nonzero(canvas.inverse_depth)
    k = camera.intrinsics
    rays = np.stack([(columns - k.cx) / k.fx, (rows - k.cy) / k.fy, np.ones(len(rows))], axis=1) @ camera.rotation()
    normal = np.cross(right, down)
    expected = (corner - (camera.x, camera.height, camera.z)) @ normal / (rays @ normal)
    hits = np.array([camera.x, camera.height, camera.z]) + rays * expected[:, None]
    assert len(rows) > 500
    np.testing.assert_allclose(1 / canvas.inverse_depth[rows, columns], expected, rtol=1e-5)
    assert np.all((hits[:, 0] > -2.1) & (hits[:, 0] < 3.1) & (hits[:, 1] > -0.1) & (hits[:, 1] < 4.1))
    assert np.all(canvas.label[rows, columns] == ID["Building"])


def test_nearer_surface_hides_the_farther_and_gaps_show_it() -> None:
    camera = Camera(Intrinsics.from_fov(120, 90), x=0.0, height=1.0, z=0.0, yaw=0.0, pitch=0.0)
    wall = Texture(np.full((8, 8, 4), 255, np.uint8))
    bars = np.full((32, 32, 4), 255, np.uint8)
    bars[:, 12:20] = 0
    surfaces = SurfaceList()
    surfaces.add((-5, 5, 5), (10, 0, 0), (0, -10, 0), Texture(bars), ID["Fence"])
    surfaces.add((-9, 9, 9), (18, 0, 0), (0, -18, 0), wall, ID["Building"])
    canvas = Canvas(camera)
    canvas.draw(surfaces.done(), 100.0)
    middle, side = canvas.inverse_depth[45, 60], canvas.inverse_depth[45, 12]
    assert (canvas.label[45, 60], canvas.label[45, 12]) == (ID["Building"], ID["Fence"])
    assert middle == pytest.approx(1 / 9)
    assert side == pytest.approx(1 / 5)


def test_seeds_differ_and_the_camera_moves(drive: SampleDrive, frames: list[Frame]) -> None:
    other = SampleDrive(seed=5).frame(0)
    assert not np.array_equal(other.image, frames[0].image)
    start, later = drive.camera(0), drive.camera(15)
    assert 4.0 < later.z - start.z < 14.0
    changed = np.abs(frames[1].image.astype(int) - frames[0].image).mean()
    assert changed > 5


@pytest.mark.parametrize(("width", "height"), [(320, 240), (641, 479)])
def test_other_sizes(width: int, height: int) -> None:
    drive = SampleDrive(seed=1, width=width, height=height)
    frame = drive.frame(30)
    assert frame.image.shape == (height, width, 3)
    assert np.array_equal(np.isposinf(frame.depth), frame.mask == ID["Sky"])
    rows, columns = np.nonzero(frame.mask == ID["Road"])
    camera = drive.camera(30)
    expected = camera.height / np.cos(camera.pitch) * camera.intrinsics.fy / (rows - camera.horizon())
    np.testing.assert_allclose(frame.depth[rows, columns], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"seed": -1}, "seed"), ({"width": 0}, "size"), ({"rate": 0.0}, "rate"), ({"rate": float("nan")}, "rate")],
)
def test_bad_arguments_are_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SampleDrive(**arguments)  # type: ignore[arg-type]


def test_negative_index_is_refused(drive: SampleDrive) -> None:
    with pytest.raises(ValueError, match="index"):
        drive.frame(-1)


def test_import_is_light() -> None:
    code = "import sys, coop_perception.sample_scene.drive; sys.exit(any(m in sys.modules for m in ('torch', 'rclpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
