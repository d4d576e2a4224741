"""What is said of the conditions over time, and which frames are restored, on the wire.

The toy bundle's fog is as present as frames are red, its rain as they are blue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node_harness import NODE, Client, connected, image_message, publish_until, set_parameters, settle
from sensor_msgs.msg import CompressedImage, Image
from toy_bundle import CONDITIONS, HEIGHT, WIDTH, write_toy_bundle

from coop_perception.images import decode, to_mask
from coop_perception.model.clear_weather import BEGIN, END
from coop_perception.model.conditions import Conditions
from coop_perception.model.over_time import CameraConditions
from coop_perception.node.weather import BatchWeather, Shown
from coop_perception_msgs.msg import ImageCondition
from coop_perception_msgs.srv import LoadBundle

PERIOD_MS = 50
AS_THEY_ARE: Mapping[str, str] = {"condition_time_constant": "0.0"}


def frame(fog: float = 0.0, rain: float = 0.0, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """One that shows these presences to within 0.01, familiar and strong to 0.8."""
    noise = np.random.default_rng(seed).integers(-2, 3, (height, width, 3))
    return np.clip(255 * np.array([fog, 0.8, rain]) + noise, 0, 255).astype(np.uint8)


class Camera:
    """Its frames come every PERIOD_MS by their stamps; what the node says of each is waited for.

    Args:
        ours: of an active node.
        name: of the camera.
        restored: whether somebody wants the restored images.
    """

    def __init__(self, ours: Client, name: str = "front", restored: bool = True) -> None:
        self._ours, self._name, self._number, self.frame_id = ours, name, 0, name
        self._conditions = ours.listen(ImageCondition, f"/{name}/coop/condition")
        self._restored = ours.listen(Image, f"/{name}/coop/image_restored") if restored else None
        self._publisher = connected(ours, Image, f"/{name}/image_raw")
        publish_until(ours, self._publisher, self._message(frame()), self._complete, f"first outputs of {name}")
        settle(ours, name)

    def _message(self, pixels: np.ndarray) -> Image:
        message = image_message(pixels, 100 + PERIOD_MS * self._number // 1000, self.frame_id)
        message.header.stamp.nanosec = PERIOD_MS * self._number % 1000 * 10**6
        return message

    def _complete(self) -> bool:
        """Whether both outputs of the newest frame are there."""
        stamp = self._message(frame()).header.stamp
        outputs = [self._conditions] if self._restored is None else [self._conditions, self._restored]
        return all(messages and messages[-1].header.stamp == stamp for messages in outputs)

    def send(self, pixels: np.ndarray) -> None:
        self._number += 1
        self._publisher.publish(self._message(pixels))

    def answer(self) -> ImageCondition:
        """The condition of the frame that was sent last, once all that is published of it is there."""
        self._ours.wait(self._complete, f"the outputs of frame {self._number} of {self._name}")
        return self._conditions[-1]

    def shows(self, pixels: np.ndarray) -> ImageCondition:
        self.send(pixels)
        return self.answer()

    @property
    def restored(self) -> np.ndarray:
        """The last one."""
        assert self._restored is not None
        return decode(self._restored[-1])


def test_clear_frames_come_back_as_they_are_and_are_counted_until_fog_comes(active: Callable[..., Client]) -> None:
    ours = active()
    diagnostics = ours.listen(DiagnosticArray, "/diagnostics")
    camera = Camera(ours)
    counted = ours.status("front").frames_clear
    assert counted == ours.status("front").frames_processed > 0
    for seed in range(5):
        condition = camera.shows(frame(seed=seed))
        np.testing.assert_array_equal(camera.restored, frame(seed=seed))
        assert not condition.restoration_ran
        assert max(condition.presence_filtered) < END
    settle(ours, "front")
    assert ours.status("front").frames_clear == counted + 5
    assert "restoration" not in [stage.name for stage in ours.status("front").stages]

    def conditions() -> str | None:
        entry = ours.diagnostic("front")
        return next((pair.value for pair in entry.values if pair.key == "conditions"), None) if entry else None

    ours.wait(lambda: conditions() == "none", "the diagnostics say that there are none")

    before_fog, foggy = counted + 5, 0
    while not (condition := camera.shows(frame(0.9, seed=foggy))).restoration_ran:
        np.testing.assert_array_equal(camera.restored, frame(0.9, seed=foggy))
        foggy += 1
        assert foggy < 30
    np.testing.assert_array_equal(camera.restored, 255 - frame(0.9, seed=foggy))
    assert foggy > 0, "a single frame says little"
    assert condition.presence_filtered[0] >= BEGIN
    settle(ours, "front")
    assert ours.status("front").frames_clear == before_fog + foggy
    assert "restoration" in [stage.name for stage in ours.status("front").stages]
    while condition.presence_filtered[0] < 0.5:
        condition = camera.shows(frame(0.9))
    diagnostics.clear()
    ours.wait(lambda: bool(diagnostics) and conditions() == "fog", "the diagnostics name it")


def test_a_condition_is_told_of_the_frame_and_over_time(active: Callable[..., Client]) -> None:
    camera = Camera(active())
    for _ in range(80):
        steady = camera.shows(frame(0.2, 0.9))
    assert steady.header.frame_id == "front"
    assert tuple(steady.conditions) == CONDITIONS
    assert steady.presence == pytest.approx([0.2, 0.9], abs=0.01)
    assert steady.presence_filtered == pytest.approx([0.2, 0.9], abs=0.03)
    assert steady.strength == pytest.approx([0.8, 0.8], abs=0.01)
    assert steady.strength_filtered == pytest.approx([0.8, 0.8], abs=0.01)
    assert (steady.familiarity, steady.familiarity_filtered) == pytest.approx((0.8, 0.8), abs=0.01)
    assert steady.restoration_ran
    odd = camera.shows(frame(0.9, 0.9))
    assert odd.presence == pytest.approx([0.9, 0.9], abs=0.01)
    assert odd.presence_filtered[0] < 0.35, "one frame of 50 ms, in an average over 500 ms"


def test_the_filter_follows_its_time_constant_and_can_be_switched_off(active: Callable[..., Client]) -> None:
    ours = active()
    camera = Camera(ours)

    def frames_until_restored() -> int:
        for number in range(1, 200):
            if camera.shows(frame(0.9)).restoration_ran:
                return number
        raise AssertionError("never")

    def clear() -> None:
        assert set_parameters(ours, condition_time_constant=0.0) == ""
        assert not camera.shows(frame()).restoration_ran

    usual = frames_until_restored()
    clear()
    assert set_parameters(ours, condition_time_constant=2.0) == ""
    camera.shows(frame())
    assert frames_until_restored() > 2 * usual
    clear()
    own = camera.shows(frame(0.9))
    assert own.restoration_ran
    assert own.presence_filtered == own.presence


def test_restoration_goes_on_until_nothing_is_left(active: Callable[..., Client]) -> None:
    camera = Camera(active(**AS_THEY_ARE))
    between = frame((BEGIN + END) / 2)
    ran = [camera.shows(shown).restoration_ran for shown in (between, frame(0.9), between, frame(), between)]
    assert ran == [False, True, True, False, False]


def test_without_skipping_every_frame_is_restored(active: Callable[..., Client]) -> None:
    ours = active(**AS_THEY_ARE)
    camera = Camera(ours)
    assert set_parameters(ours, skip_when_clear=False) == ""
    counted = ours.status("front").frames_clear
    assert camera.shows(frame(0.25)).restoration_ran
    np.testing.assert_array_equal(camera.restored, 255 - frame(0.25))
    settle(ours, "front")
    assert ours.status("front").frames_clear == counted
    assert set_parameters(ours, skip_when_clear=True) == ""
    assert not camera.shows(frame(0.25)).restoration_ran


def test_the_filter_sees_frames_that_nobody_wants_restored(active: Callable[..., Client]) -> None:
    ours = active()
    camera = Camera(ours, restored=False)
    for _ in range(20):
        condition = camera.shows(frame(0.9))
    assert condition.presence_filtered[0] > 0.5
    assert not condition.restoration_ran
    settle(ours, "front")
    assert ours.status("front").frames_clear == 0
    compressed = ours.listen(CompressedImage, "/front/coop/image_restored/compressed")
    while not camera.shows(frame(0.9)).restoration_ran:  # until the node knows of that subscription
        assert not compressed
    ours.wait(lambda: bool(compressed), "the first one, which is restored already")
    assert np.abs(decode(compressed[0]).astype(int) - (255 - frame(0.9))).mean() < 12


def test_another_camera_on_the_same_topic_begins_anew(active: Callable[..., Client]) -> None:
    """As frame_id says; its images have the size of the one before."""
    camera = Camera(active())
    for _ in range(10):
        camera.shows(frame(0.02))
    assert camera.shows(frame(0.9)).presence_filtered[0] < 0.5
    camera.frame_id = "rear_optical_frame"
    assert camera.shows(frame(0.9)).presence_filtered[0] == pytest.approx(0.9, abs=0.02)


def test_cameras_of_several_sizes_and_weathers_in_one_batch(active: Callable[..., Client]) -> None:
    """Three of one size, of which one is clear, and one of another size; each has its own weather."""
    weather = {"front": (0.9, 0.0), "rear": (0.0, 0.0), "left": (0.0, 0.7), "right": (0.0, 0.9)}
    sizes = {"right": (48, 160)}
    ours = active(cameras=f"[{', '.join(weather)}]", **AS_THEY_ARE)
    cameras = {name: Camera(ours, name) for name in weather}
    assert set_parameters(ours, batch_window_ms=1000.0) == ""
    for seed in range(5):
        frames = {name: frame(*shows, *sizes.get(name, (HEIGHT, WIDTH)), seed) for name, shows in weather.items()}
        for name, camera in cameras.items():
            camera.send(frames[name])
        for name, camera in cameras.items():
            condition = camera.answer()
            assert condition.presence == pytest.approx(weather[name], abs=0.01), name
            assert condition.restoration_ran == (name != "rear")
            expected = frames[name] if name == "rear" else 255 - frames[name]
            np.testing.assert_array_equal(camera.restored, expected, name)
    settle(ours, *weather)
    clear = {name: ours.status(name).frames_clear for name in weather}
    assert clear["rear"] == ours.status("rear").frames_processed
    assert all(
        ours.status(name).frames_clear < ours.status(name).frames_processed for name in weather if name != "rear"
    )


def test_only_who_wants_restored_images_has_them_computed(active: Callable[..., Client]) -> None:
    """Two cameras of one batch in fog: of the one whose restored image nobody wants none is made."""
    ours = active(cameras="[front, rear]", **AS_THEY_ARE)
    cameras = {name: Camera(ours, name, restored=name == "front") for name in ("front", "rear")}
    assert set_parameters(ours, batch_window_ms=1000.0) == ""
    for camera in cameras.values():
        camera.send(frame(0.9))
    assert {name: camera.answer().restoration_ran for name, camera in cameras.items()} == {"front": True, "rear": False}


def test_another_bundle_begins_anew(active: Callable[..., Client], tmp_path: Path) -> None:
    ours = active()
    camera = Camera(ours)
    for _ in range(20):
        camera.shows(frame(0.9))
    other = write_toy_bundle(tmp_path / "other")
    assert ours.call(LoadBundle, f"{NODE}/load_bundle", LoadBundle.Request(path=str(other))).success
    first = camera.shows(frame(0.1))
    assert first.presence_filtered == pytest.approx(first.presence, abs=0.002)


def test_masks_are_computed_at_the_height_that_is_asked_for(active: Callable[..., Client]) -> None:
    """Stripes one pixel wide are lost in an image of half their height, and kept in one of their own."""
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask_raw")
    publisher = connected(ours, Image, "/front/image_raw")
    large = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.uint8)
    large[::2] = 10
    second = 0

    def mask(height: int) -> np.ndarray:
        nonlocal second
        second += 1
        assert set_parameters(ours, network_height=height) == ""
        publish_until(
            ours,
            publisher,
            image_message(large, second),
            lambda: bool(masks) and masks[-1].header.stamp.sec == second,
            f"a mask at {height}",
        )
        return to_mask(masks[-1])

    assert (mask(0) == 5).all()
    np.testing.assert_array_equal(mask(2 * HEIGHT), large[..., 0])
    np.testing.assert_array_equal(mask(2 * HEIGHT + 15), large[..., 0])  # the nearest multiple of 32
    assert (mask(HEIGHT) == 5).all()
    assert (mask(1) == 5).all()  # held to what the bundle takes
    assert "network_height" in set_parameters(ours, network_height=-1)


def test_a_batch_that_is_run_again_takes_its_frames_once() -> None:
    """Where a network fails, each frame is tried alone: its camera's average has had it already."""
    clear, foggy = (Conditions(np.array([p], np.float32), np.array([0.5], np.float32), 1.0) for p in (0.02, 0.9))
    parameters = {"condition_time_constant": 0.5, "skip_when_clear": True}
    cameras = {name: CameraConditions() for name in ("front", "rear")}

    def batch(stamp_ns: int) -> BatchWeather:
        return BatchWeather(cameras, {name: Shown(stamp_ns, (32, 64, "front"), True) for name in cameras}, parameters)

    first = batch(0)
    assert [first.decide(["front", "rear"])(index, clear) for index in (0, 1)] == [None, None]
    second = batch(10**8)
    together = second.decide(["front", "rear"])
    assert together(0, clear) is None
    assert together(1, foggy) is None
    kept = {name: second.over_time(name, None) for name in cameras}
    for name, again in (("front", clear), ("rear", foggy)):
        assert second.decide([name])(0, again) is None
        assert second.over_time(name, again) is kept[name]
    assert 0.02 < kept["rear"].presence[0] < BEGIN
    assert batch(2 * 10**8).over_time("front", None) is None
